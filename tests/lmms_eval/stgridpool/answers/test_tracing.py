"""Traces of the miniature's tokens: as many as enter and leave the language model."""

from pathlib import Path

import pytest
import torch

from lmms_eval_stgridpool.answers.asking import ask
from lmms_eval_stgridpool.answers.tracing import trace
from lmms_eval_stgridpool.llava_video import LlavaVideo
from stgridpool import COMPRESSORS, build_compressor

MINIATURE = str(Path(__file__).resolve().parents[4] / "scripts" / "nano" / "checkpoint")
QUESTION = "What colour is the moving shape?"
# Options without which a method does not fit three layers in the tower and five behind it, or needs more than it has.
OPTIONS = {
    "st_simdiff": {"layer": 1},
    "fastvid": {"importance": "received", "frames": "mean"},
    "earlytom_frames": {"layers": (-2, -1)},
}
ELSEWHERE = {"oracle_frames", "earlytom", "aot"}  # a file of frames, and more layers


@pytest.fixture(scope="module")
def video(tmp_path_factory, write_video):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", num_frames=48, rate=6)


@pytest.fixture(scope="module")
def encoder():
    return LlavaVideo(pretrained=MINIATURE, max_frames_num=8, device="cpu").encoder


def test_every_method_can_be_traced(encoder, video):
    methods = {name: build_compressor(name, **OPTIONS.get(name, {})) for name in COMPRESSORS if name not in ELSEWHERE}
    traced = trace(encoder, video, QUESTION, methods)
    assert traced.frames.shape == (8, 48, 64, 3)
    assert [one.name for one in traced.traces] == list(methods)
    for one in traced.traces:
        assert one.shape == (8, 7, 7)
        for stage in one.stages:
            assert len(stage.plan) == len(stage.chosen) > 0
            assert stage.plan.num_sources == 8 * 49
        for heat in one.heat_maps:
            assert heat.values.shape == (8 * 49,)
            assert (heat.values[~heat.values.isnan()] >= 0).all()


def test_a_trace_ends_with_what_the_last_layer_keeps(encoder, video):
    methods = {
        name: build_compressor(name, **options)
        for name, options in (("nsp", {}), ("fastv", {"layer": 2, "retention": 0.5}), ("sttm", {"retention": 0.25}))
    }
    traced = trace(encoder, video, QUESTION, methods)
    replies = ask(encoder, video, [QUESTION], methods, 1).replies
    for one, reply in zip(traced.traces, replies, strict=True):
        assert len(one.stages[0].plan) == reply.visual_tokens
        last = reply.retention["last_layer"] * 8 * 16  # of the checkpoint's own tokens
        assert len(one.stages[-1].plan) == pytest.approx(last)
    assert [stage.label for stage in traced.traces[1].stages] == ["into the language model", "from layer 2 on"]
    assert [heat.label for heat in traced.traces[1].heat_maps] == [
        "norm in layer 2",
        "attention of the last token, layer 1",
    ]
    assert traced.traces[2].stages[-1].parts is not None


def test_norms_are_those_of_the_tokens_that_a_method_saw(encoder, video):
    """Without compression the language model reads the patches themselves, each behind its row's newline."""
    encoder.model.compressor = "none"
    (heat,) = trace(encoder, video, QUESTION, {"none": build_compressor("none")}).traces[0].heat_maps
    encoded = encoder.encode([str(video)], timer())
    embeds = encoder.compress(encoded, QUESTION, timer()).visuals[0].embeds
    places = torch.arange(8 * 7 * 8).view(8 * 7, 8)[:, :7].flatten()  # every eighth is a newline
    torch.testing.assert_close(heat.values, embeds[places].norm(dim=-1).float())


def timer():
    from stgridpool.timing import StageTimer

    return StageTimer(torch.device("cpu"))


def test_the_video_is_encoded_once_for_all_methods(encoder, video):
    seen = []
    model, plain = encoder.model, type(encoder.model).encode
    model.encode = lambda *words: seen.append(1) or plain(model, *words)
    try:
        trace(encoder, video, QUESTION, {name: build_compressor(name) for name in ("nsp", "visionzip", "fastv")})
    finally:
        del model.encode
    assert len(seen) == 1
