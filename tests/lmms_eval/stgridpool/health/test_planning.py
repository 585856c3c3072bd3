"""Tokens that are counted beforehand are those of the running model."""

import json
from pathlib import Path

import pytest
import torch

from llava.model.builder import load_pretrained_model
from llava.model.checkpoint import read_checkpoint
from lmms_eval_stgridpool.health.planning import Planner
from lmms_eval_stgridpool.run.checkpoint_checks import read_checkpoint_settings
from stgridpool import NSP, STTM, Average, Bilinear, FastV, NoCompression, VisionZip, build_compressor

MINIATURE = str(Path(__file__).resolve().parents[4] / "scripts" / "nano" / "checkpoint")


@pytest.fixture(scope="module")
def planner():
    return Planner.of(MINIATURE)


@pytest.fixture(scope="module")
def model():
    return load_pretrained_model(
        MINIATURE, None, None, device_map="cpu", torch_dtype="float32", attn_implementation="sdpa"
    )[1].eval()


@pytest.mark.parametrize("method", [NSP(), Average(3), Bilinear(2), VisionZip(retention=0.5)])
def test_counts_are_those_of_the_model(planner, model, method):
    model.compressor = method
    side = model.get_vision_tower().image_size
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        video = model.encode_video(torch.rand(5, 3, side, side, generator=generator))
    planned = planner.plan(method, 5)
    assert planned.tokens == video.num_tokens
    assert planned.newlines_are_exact == (not isinstance(method, VisionZip))
    assert video.num_newlines <= planned.newlines
    assert video.num_newlines == planned.newlines or not planned.newlines_are_exact
    assert planned.own_tokens == model.own_counts(5)[0]


@pytest.mark.parametrize(
    ("name", "options", "pathways"),
    [
        ("none+norm_topk", {"norm_topk": {"retention": 0.9}}, 1),
        ("slowfast", {}, 2),
        ("none+ts_llava", {"ts_llava": {"retention": 0.9}}, 2),
    ],
)
def test_no_more_newlines_than_rows_of_what_a_method_sees(planner, model, name, options, pathways):
    """Each pathway may have one after every row of a frame, of which the checkpoint's own pooling leaves fewer."""
    model.compressor = build_compressor(name, **options)
    side = model.get_vision_tower().image_size
    with torch.no_grad():
        video = model.encode_video(torch.rand(5, 3, side, side))
    planned = planner.plan(model.compressor, 5)
    assert model.own_counts(5)[1] < video.num_newlines <= planned.newlines
    assert planned.newlines == pathways * 5 * planner.reference.patches[0]
    assert not planned.newlines_are_exact


def test_means_with_newlines_need_not_be_whole():
    """Two layers hold 64 tokens and three 32, 44.8 on average, and one newline each."""
    planned = Planner.of(MINIATURE, {"mm_newline_position": "one_token"}).plan(FastV(retention=0.5), 4)
    assert planned.retention["layer_average_with_newlines"] == pytest.approx(45.8 / 65)
    assert planned.retention["last_layer_with_newlines"] == 33 / 65


def test_every_definition_is_reported(planner):
    planned = planner.plan(FastV(retention=0.5), 4)  # 64 own tokens, all in 2 of 4 layers, 32 in the others
    layers = planner.reference.num_layers
    average = (2 * 64 + (layers - 2) * 32) / layers
    assert planned.kept["entering_llm"] == 64
    assert planned.kept["last_layer"] == 32
    assert planned.kept["layer_average"] == planned.kept["kv_read"] == round(average)
    assert planned.retention["last_layer"] == 0.5
    assert planned.kept["entering_llm_with_newlines"] is None  # layers have different newlines
    whole = planner.plan(NSP(), 4)  # 9 tokens and 3 newlines of 16 and 4
    assert whole.retention["entering_llm_with_newlines"] == 48 / 80
    assert (whole.tokens, whole.newlines) == (36, 12)


def test_cost_follows_from_the_counts(planner):
    none = planner.plan(Bilinear(2), 4)
    lengths = [64 + 16 + 64] * planner.reference.num_layers
    assert none.tflops == planner.size.prefill_flops(lengths) / 1e12
    assert none.kv_megabytes == planner.size.kv_bytes(lengths) / 1e6
    decided = planner.plan(STTM(), 4)
    assert (decided.tokens, decided.tflops, decided.kept["last_layer"]) == (64, None, None)


@pytest.mark.parametrize("overwrites", [{}, {"mm_newline_position": "no_token", "tokenizer_model_max_length": 77}])
def test_settings_alone_say_the_same_as_the_checkpoint(overwrites):
    settings = json.loads(Path(MINIATURE, "config.json").read_text()) | overwrites
    found = Planner.of_settings(settings)
    expected = Planner.of_model(read_checkpoint(Path(MINIATURE), overwrites=overwrites).outline())
    assert vars(found) == vars(expected) == vars(Planner.of(MINIATURE, overwrites))


def test_released_checkpoints_are_planned_from_their_settings():
    settings = {"num_hidden_layers": 28, "hidden_size": 3584, "num_attention_heads": 28, "num_key_value_heads": 4}
    settings |= {
        "intermediate_size": 18944,
        "vocab_size": 152064,
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
    }
    settings |= {"mm_patch_merge_type": "spatial_unpad", "mm_newline_position": "grid", "mm_spatial_pool_mode": None}
    planner = Planner.of_settings(settings | {"tokenizer_model_max_length": 32768})
    planned = planner.plan(Bilinear(), 64)
    assert (planned.tokens, planned.newlines) == (64 * 14 * 14, 64 * 14)
    assert Planner.of_settings({**settings, "mm_vision_tower": "someone/siglip"}) is None
    assert Planner.of_settings({**settings, "vocab_size": None}) is None


@pytest.mark.parametrize("name", ["video", "base", "lite"])
@pytest.mark.parametrize(
    "overwrites",
    [
        {},
        {"video_encoding": "frames"},
        {"mm_newline_position": "no_token", "tokenizer_model_max_length": 77, "max_position_embeddings": 77},
    ],
)
def test_settings_of_nvila_say_the_same_as_the_checkpoint(golden, name, overwrites):
    folder = str(golden / "nvila" / f"ckpt-{name}")
    _, settings = read_checkpoint_settings(folder)
    found, expected = Planner.of_settings({**settings, **overwrites}), Planner.of(folder, overwrites)
    assert vars(found) == vars(expected)


def test_what_the_settings_leave_out_is_read_off_the_model(golden):
    folder, overwrites = golden / "nvila" / "ckpt-video", {"mm_newline_position": "no_token"}
    model = read_checkpoint(folder, overwrites=overwrites).outline()
    assert vars(Planner.of(str(folder), overwrites)) == vars(Planner.of_model(model))


TSP = {"_target_": "llava.model.encoders.TSPVideoEncoder", "pool_sizes": [[8, 1, 1]]}
NVILA = {
    "architectures": ["LlavaLlamaModel"],
    "llm_cfg": {
        **{"num_hidden_layers": 28, "hidden_size": 3584, "num_attention_heads": 28, "num_key_value_heads": 4},
        **{"intermediate_size": 18944, "vocab_size": 151648, "max_position_embeddings": 32768},
    },
    "vision_tower_cfg": {"image_size": 448, "patch_size": 14},
    "mm_projector_cfg": {"mm_projector_type": "mlp_downsample_2x2_fix"},
    "video_encoder": TSP,
}
LITE = {"mm_projector_cfg": {"mm_projector_type": "mlp_downsample_3x3_fix"}, "video_encoder": None}


@pytest.mark.parametrize(
    ("changes", "method", "frames", "counts", "fits"),
    [
        ({}, FastV(), 64, (8 * 256, 8), True),
        ({}, FastV(), 256, (32 * 256, 32), True),
        ({}, NoCompression(), 64, (64 * 256, 64), True),
        ({}, NoCompression(), 256, (256 * 256, 256), False),
        ({"video_encoding": "frames"}, FastV(), 256, (256 * 256, 256), False),
        ({}, NSP(), 64, (64 * 64, 64), True),
        (LITE, NoCompression(), 256, (256 * 121, 256), True),
        (LITE, NSP(), 64, (64 * 25, 64), True),
        ({"video_encoder": {**TSP, "end_tokens": None}}, FastV(), 64, (8 * 256, 0), True),
    ],
)
def test_nvila_is_planned_from_its_settings(changes, method, frames, counts, fits):
    """16 x 16 tokens of a frame, 11 x 11 of NVILA-Lite, and a newline; eight frames become one."""
    planned = Planner.of_settings(NVILA | changes).plan(method, frames)
    assert (planned.tokens, planned.newlines) == counts
    assert planned.fits is fits


def test_nvila_is_not_planned_without_its_sizes():
    assert Planner.of_settings(NVILA | {"llm_cfg": "llm"}) is None
    assert Planner.of_settings(NVILA | {"llm_cfg": {}}) is None
    assert Planner.of_settings(NVILA | {"video_encoder": {**TSP, "pool_sizes": [[8, 1, 1], [1, 4, 4]]}}) is None


def test_frames_that_fit(planner):
    assert planner.fit(NSP(), 100) == 8  # 12 with newlines per frame
    assert planner.fit(NSP(), 96) == 8
    assert planner.fit(NSP(), 95) == 7
    assert Planner.of(MINIATURE, {"mm_newline_position": "no_token"}).fit(NSP(), 95) == 10
    with pytest.raises(ValueError, match="one frame has 12 tokens, more than 11"):
        planner.fit(NSP(), 11)


def test_numbers_of_frames_that_a_method_refuses_are_left_out(planner):
    """dycoke_ttm keeps the first frame whole, so half of one frame cannot be; temporal_average leaves whole frames."""
    from stgridpool import DyCokeTTM, TemporalAverage

    assert planner.fit(DyCokeTTM(retention=0.5), 16 * 20 + 40 * 4) == 40  # half of 16 tokens a frame, 4 newlines
    fewest = planner.fit(TemporalAverage(retention=0.1), 20 * 5)
    assert fewest % 10 == 0  # 20 tokens and newlines for a tenth of the frames
    assert fewest == 50
    with pytest.raises(
        ValueError, match=r"10 frames, the fewest that TemporalAverage.* takes, have 20 tokens, more than 1"
    ):
        planner.fit(TemporalAverage(retention=0.1), 19)
    assert planner.most_frames(DyCokeTTM(retention=0.5)) is not None


def test_frames_cannot_fit_where_the_tokens_decide(planner):
    from stgridpool import FrameFusionMerge

    with pytest.raises(ValueError, match="depends on the video: give it a budget"):
        planner.fit(FrameFusionMerge(threshold=0.6), 100)


def test_a_long_prompt_does_not_fit(planner):
    assert planner.longest is not None
    frames = planner.fit(Bilinear(2), planner.longest - 64)
    assert planner.plan(Bilinear(2), frames).fits is True
    assert planner.plan(Bilinear(2), frames + 1).fits is False
