"""Whether the longest videos of a run fit is said before anything is loaded, with what would."""

from pathlib import Path

import pytest

from lmms_eval_stgridpool.health.planning import Planner
from lmms_eval_stgridpool.run.context_length import too_long
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments
from stgridpool import Bilinear, Random
from stgridpool.cost import DecoderSize
from stgridpool.equal_budget import Reference

MINIATURE = str(Path(__file__).resolve().parents[4] / "scripts" / "nano" / "checkpoint")
SIZE = DecoderSize(layers=28, width=8, heads=1, kv_heads=1, head_size=8, inner_width=8, vocabulary=10)
"""As many layers as LLaVA-Video-7B; widths do not matter here."""


def planner_of(newlines="no_token", longest=32768):
    """LLaVA-Video-7B: 27 x 27 patches, pooled to 14 x 14."""
    return Planner(Reference(Bilinear(), (27, 27), 28), SIZE, newlines, longest)


def warning(compressor, frames, longest=32768, newlines="no_token", **more):
    arguments = LlavaArguments(pretrained="x", compressor=compressor, max_frames_num=frames, **more)
    found = too_long(planner_of(newlines, longest), arguments.build_compressor(), compressor, frames)
    return found and found.text


@pytest.mark.parametrize(("compressor", "pooled"), [("ptg", "ptg+bilinear"), ("none", "bilinear")])
def test_what_does_not_pool_does_not_fit_at_64_frames(compressor, pooled):
    said = warning(compressor, 64)
    assert said.startswith("64 frames make a prompt of about 46720 tokens (64 for text), and the checkpoint ")
    # 64 * 27 * 27 = 46656 and 64 of text; 44 * 729 + 64 = 32140, and 45 frames are 32869.
    assert f"use compressor={pooled}, max_frames_num=44, " in said
    assert said.endswith("a longer context with max_length=46720")
    assert warning(pooled, 64) is None
    assert warning(compressor, 44) is None
    assert warning(compressor, 45) is not None
    assert warning(compressor, 64, longest=46720) is None
    assert warning(compressor, 64, longest=46719) is not None


def test_sttm_on_vnbench():
    preset = {"preset": "llava-video-7b/vnbench/30"}
    said = warning("sttm", 180, compressor_args=preset)
    assert "about 35344 tokens" in said  # 180 * 196 + 64
    assert "compressor=" not in said
    assert "max_frames_num=166, " in said  # 166 * 196 = 32536, 167 * 196 = 32732
    assert warning("sttm", 180, longest=65536, compressor_args=preset) is None


def test_a_method_in_front_of_layer_0_counts_with_what_it_keeps():
    front = {"layer": 0, "retention": 0.5}
    assert warning("sttm", 180, compressor_args=front) is None
    assert warning("sttm", 180, compressor_args={"layer": 2, "retention": 0.5}) is not None
    assert warning("sttm", 180, compressor_args=front | {"positions": "survive"}) is not None


def test_newlines_count():
    assert "about 12664 tokens" in warning(
        "bilinear", 60, longest=10000, newlines="grid"
    )  # 60 * (196 + 14) + 64 = 12664
    assert warning("bilinear", 47, longest=10000, newlines="grid") is None


def test_the_arguments_set_the_context():
    arguments = LlavaArguments(pretrained=MINIATURE, max_length=77, mm_newline_position="no_token", compressor="none")
    planner = Planner.of(MINIATURE, arguments.overwrites())
    assert (planner.longest, planner.newline_position) == (77, "no_token")


def test_methods_may_refuse_some_numbers_of_frames():
    """dycoke_ttm keeps the first frame of a video; temporal_average leaves whole frames, and 6.4 are none."""
    said = warning("dycoke_ttm", 64, longest=4000, compressor_args={"retention": 0.5})
    assert said.startswith("64 frames make a prompt of about 6336 tokens")  # half of 64 * 196, and 64 of text
    assert "max_frames_num=40, " in said  # 40 * 98 + 64 = 3984
    assert warning("temporal_average", 64, longest=100, compressor_args={"retention": 0.1}) is None


@pytest.mark.parametrize(
    ("longest", "newlines", "fails"),
    [
        (780, "no_token", "will fail"),  # 4 frames of 195 tokens and no text
        (781, "no_token", "with more than 1 tokens of text may fail"),
        (843, "no_token", "with more than 63 tokens of text may fail"),
    ],
)
def test_only_the_text_beside_a_video_may_decide(longest, newlines, fails):
    """A video whose own tokens fit is not refused."""
    planner = planner_of(newlines, longest)
    found = too_long(planner, Random(tokens=780), "random", 4)
    assert f"questions about long videos {fails}; use " in found.text
    assert found.is_certain == (fails == "will fail")


def test_newlines_that_may_fall_away_refuse_nothing():
    """Of 4 frames of 14 x 14, 100 tokens leave between 8 and 56 rows, each with a newline."""
    method = Random(tokens=100)
    assert too_long(planner_of("grid", 100 + 56), method, "random", 4).is_certain is False
    assert too_long(planner_of("grid", 101), method, "random", 4).is_certain is False
    assert too_long(planner_of("grid", 100), method, "random", 4).is_certain is True
