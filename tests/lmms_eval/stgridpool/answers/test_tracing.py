"""Traces of the miniature's tokens: as many as enter and leave the language model."""

from pathlib import Path

import pytest
import torch

from lmms_eval_stgridpool.answers.asking import ask
from lmms_eval_stgridpool.answers.tracing import trace
from lmms_eval_stgridpool.llava_video import LlavaVideo
from lmms_eval_stgridpool.video_hf import VideoHf
from native_models.families import save
from stgridpool import COMPRESSORS, build_compressor
from stgridpool.finite import NonFiniteError
from stgridpool.show.trace import entries

MINIATURE = str(Path(__file__).resolve().parents[4] / "scripts" / "nano" / "checkpoint")
QUESTION = "What colour is the moving shape?"
# Options without which a method does not fit three layers in the tower and five after it, or needs more than it has.
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
    """Without compression the language model reads the patches themselves, each after its row's newline."""
    encoder.model.compressor = "none"
    (heat,) = trace(encoder, video, QUESTION, {"none": build_compressor("none")}).traces[0].heat_maps
    encoded = encoder.encode([str(video)], timer())
    embeds = encoder.compress(encoded, QUESTION, timer()).visuals[0].embeds
    places = torch.arange(8 * 7 * 8).view(8 * 7, 8)[:, :7].flatten()  # every eighth is a newline
    torch.testing.assert_close(heat.values, embeds[places].norm(dim=-1).float())


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """Function that returns the encoder of a tiny native model."""

    def make(name):
        folder = save(name, tmp_path_factory.mktemp("native") / name)
        settings = {"compressor": "none", "max_frames_num": 2, "device": "cpu", "torch_dtype": "float32"}
        return VideoHf(pretrained=str(folder), **settings).encoder

    return make


def test_methods_before_and_behind_a_models_own_pooling_stand_on_the_same_patches(native, video):
    """Frames of 7x7 patches, pooled to 4x4 or 3x3; half of the 16 tokens are kept."""
    methods = {"nsp": build_compressor("nsp"), "evs": build_compressor("evs", retention=0.5)}
    nsp, evs = trace(native("llava_onevision"), video, QUESTION, methods).traces
    assert nsp.shape == evs.shape == (2, 7, 7)
    assert (len(nsp.stages[-1].plan), len(evs.stages[-1].plan)) == (2 * 9, 16)
    assert evs.stages[-1].lattice == (2, 4, 4)
    assert evs.heat_maps[0].values.shape == (2 * 49,)


def test_class_tokens_are_drawn_as_their_frames(native, video):
    """Video-LLaVA puts a class token before the 4x4 patches of a frame; it chooses the frames, which are eight."""
    (one,) = trace(native("video_llava"), video, QUESTION, {"evs": build_compressor("evs", retention=1.0)}).traces
    rows = entries(one.stages[-1].plan)
    frames = one.shape[0]
    assert one.shape[1:] == (4, 4)
    assert len(rows) == frames * 17
    assert rows.offsets.diff().view(frames, 17).tolist() == [[16] + [1] * 16] * frames
    assert rows.sources[:32].tolist() == [*range(16), *range(16)]
    assert rows.weights[:32].tolist() == [1 / 16] * 16 + [1] * 16


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


@pytest.mark.parametrize(
    ("method", "weight", "stage"),
    [("nsp", "model.mm_projector.2.bias", "projector"), ("fastv", "lm_head.weight", "language model")],
)
def test_tokens_that_are_nan_are_not_drawn(encoder, video, monkeypatch, method, weight, stage):
    damaged = encoder.model.language_model.get_parameter(weight)
    monkeypatch.setattr(damaged, "data", damaged.data * float("nan"))
    with pytest.raises(NonFiniteError, match=f"^NaN or infinity in the {stage} with torch_dtype="):
        trace(encoder, video, QUESTION, {method: build_compressor(method)})
