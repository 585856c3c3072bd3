"""Which frames a native model gets; expected values follow from the rates and limits that the families publish."""

import copy
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from native_models.families import BUILDERS, build
from stgridpool.adapters.families import adapter_for
from stgridpool.adapters.frame_rules import OwnRule, Source

pytestmark = pytest.mark.adapters


def rule(name, **options):
    model, processor = build(name)
    return OwnRule(processor.video_processor, adapter_for(model).sampling, **options)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llava_onevision", [7 * index + index // 2 for index in range(32)]),  # every 7.5th of 240
        ("qwen2_vl", list(range(0, 240, 12))),  # two per second, from the first on
        ("qwen2_5_vl", list(range(0, 240, 12))),
        ("qwen3_vl", np.linspace(0, 239, 20).round().astype(int).tolist()),  # as many, with the last
        ("glm4v", list(range(0, 240, 12))),
        ("video_llama_3", list(range(0, 240, 24))),  # one per second
        ("video_llava", list(range(0, 240, 30))),  # 8
        ("internvl", list(range(15, 240, 30))),  # the middles of 8 parts
    ],
)
def test_each_family_samples_ten_seconds_in_its_own_way(name, expected):
    assert rule(name).choose(Source(240, 24.0)) == expected


@pytest.mark.parametrize("name", BUILDERS)
def test_short_videos_give_frames_that_they_have(name):
    for num_frames in (1, 2, 3, 5, 40):
        chosen = rule(name).choose(Source(num_frames, 24.0))
        assert chosen == sorted(chosen), num_frames
        assert 0 <= chosen[0] <= chosen[-1] < num_frames


@pytest.mark.parametrize("name", BUILDERS)
def test_rates_that_a_short_video_cannot_meet_are_met_as_far_as_possible(name):
    for fps, num_frames in product((0.01, 30), (1, 2, 3, 5, 40)):
        chosen = rule(name, fps=fps).choose(Source(num_frames, 24.0))
        assert chosen == sorted(chosen), (fps, num_frames)
        assert 0 <= chosen[0] <= chosen[-1] < num_frames, fps
        if fps > 24:
            assert len(set(chosen)) >= num_frames - 1  # an even number in some families


@pytest.mark.parametrize("name", ["llava_onevision", "internvl", "qwen2_5_vl", "video_llama_3", "molmo2"])
def test_the_rate_takes_precedence_over_the_number_of_frames_of_the_checkpoint(name):
    if name not in BUILDERS:
        pytest.skip(f"this transformers lacks {name}")
    with_number = rule(name, fps=2)
    with_number = replace(with_number, video_processor=copy.copy(with_number.video_processor))
    with_number.video_processor.num_frames = 8
    assert with_number.choose(Source(240, 24.0)) == rule(name, fps=2).choose(Source(240, 24.0))
    assert len(with_number.choose(Source(240, 24.0))) == 20
    assert len(replace(with_number, fps=None).choose(Source(240, 24.0))) == 8
    assert with_number.video_processor.num_frames == 8


def test_the_rate_of_the_checkpoint_is_followed():
    """InternVL's processor takes rates from calls only."""
    with_rate = rule("internvl")
    with_rate = replace(with_rate, video_processor=copy.copy(with_rate.video_processor))
    with_rate.video_processor.fps = 2
    assert with_rate.choose(Source(240, 24.0)) == list(range(6, 240, 12))  # the middles of 20 parts
    assert with_rate.choose(Source(5, 24.0)) == [2]


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_a_single_frame_is_repeated_to_fill_a_token(name):
    assert rule(name).choose(Source(1, 24.0)) == [0, 0]


def test_rate_and_maximum_are_those_of_the_user():
    assert rule("qwen2_5_vl", fps=1).choose(Source(240, 24.0)) == list(range(0, 240, 24))
    assert rule("qwen2_5_vl", max_frames_num=4).choose(Source(241, 24.0)) == [0, 80, 160, 240]
    assert rule("qwen3_vl", fps=4, max_frames_num=100).choose(Source(240, 24.0))[:3] == [0, 6, 12]
