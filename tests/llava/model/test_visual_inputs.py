"""The seam for compressors, encoded videos, batching, and the methods that scripts know."""

import copy
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from llava.encoded_video import EncodedVideo
from stgridpool import (
    COMPRESSORS,
    Average,
    Bilinear,
    Compressor,
    Max,
    Need,
    NoCompression,
    Plan,
    Scorer,
    STGridPool,
    build_compressor,
)
from stgridpool.compressor import PATCHES
from stgridpool.evidence import AttentionReceived, ClassAttention
from stgridpool.timing import StageTimer


@pytest.fixture
def model(video_checkpoint):
    yield video_checkpoint.model
    video_checkpoint.model.compressor = None


@dataclass(frozen=True)
class KeepSome(Compressor):
    """Keeps a few tokens as they are: another number in every frame and row, none in some."""

    def plan(self, tokens, evidence) -> Plan:
        place = torch.tensor([[0, 0, 1], [0, 0, 4], [0, 3, 2], [2, 6, 6]])
        return Plan.keep(place @ torch.tensor([49, 7, 1]), len(tokens))


def test_the_default_is_the_checkpoints_pooling_at_the_time_of_use(model, settings):
    assert model.compressor == Bilinear(stride=2)
    with settings(model.config, mm_spatial_pool_mode="average", mm_spatial_pool_stride=4):
        assert model.compressor == Average(kernel_size=2, stride=2)
    with settings(model.config, mm_spatial_pool_mode="max"):
        assert model.compressor == Max(kernel_size=2, stride=2)
    with settings(model.config, mm_spatial_pool_mode="sum"), pytest.raises(ValueError, match="average, max, bilinear"):
        _ = model.compressor


def test_setting_and_resetting(model):
    model.compressor = "st_gridpool"
    assert model.compressor == STGridPool()
    model.compressor = NoCompression()
    assert model.compressor == NoCompression()
    model.compressor = None
    assert model.compressor == Bilinear(stride=2)
    with pytest.raises(TypeError, match="must be a Compressor, a name or None, got int"):
        model.compressor = 3


@dataclass(frozen=True)
class WithAttention(KeepSome):
    needs: ClassVar[frozenset[Need]] = frozenset({ClassAttention()})


def test_a_compressor_that_needs_what_no_siglip_tower_offers_is_rejected(model):
    offered = "AllFramesLattice, AttentionReceived, FrameCosines, FrameSources, FrameVectors, ListedFrames, "
    offered += "PoolHeadAttention, QueryAttention, Question, RotaryBias, TowerKeys"
    with pytest.raises(
        ValueError,
        match=rf"WithAttention\(.*needs ClassAttention\(layer=-1, joined=False\); this model offers {offered}",
    ):
        model.compressor = WithAttention()


def leaves_a_lattice_of_patches(compressor):
    return compressor.steps()[0].place == PATCHES and compressor.planned_shape((9, 7, 7)) is not None


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in COMPRESSORS if leaves_a_lattice_of_patches(build_compressor(name))])
@pytest.mark.parametrize("frames", [1, 9])
def test_counts_are_what_the_plan_says(model, video_frames, name, frames):
    model.compressor = build_compressor(name, **({"window": 4, "levels": 2} if name == "ptg" else {}))
    video = model.encode_video(video_frames[:frames])
    left, rows, columns = video.plan.shape
    assert len(video.plan) == model.compressor.planned_count((frames, 7, 7)) == left * rows * columns
    assert video.num_newlines == left * rows
    assert video.embeds.shape == (len(video.plan) + video.num_newlines, 64)


@torch.no_grad()
def test_any_number_of_tokens_per_frame(model, video_frames, settings):
    model.compressor = KeepSome()
    features = model.encode_images(video_frames[:3]).unflatten(1, (7, 7))
    newline = model.model.image_newline
    expected = [features[0, 0, 1], features[0, 0, 4], newline, features[0, 3, 2], newline, features[2, 6, 6], newline]
    video = model.encode_video(video_frames[:3])
    torch.testing.assert_close(video.embeds, torch.stack(expected))
    assert (len(video.plan), video.num_tokens, video.num_newlines) == (4, 4, 3)
    assert (video.source_shape, video.shape, video.cell.tolist()) == ((3, 7, 7), (3, 7, 7), [1, 4, 23, 146])
    with settings(model.config, mm_newline_position="frame"):
        assert model.encode_video(video_frames[:3]).num_newlines == 2


@torch.no_grad()
def test_an_encoded_video_gives_the_same_answers(model, video_frames):
    ids = torch.tensor([[5, -200, 6, 7]])
    pixels = video_frames[:4]
    before = pixels.clone()
    video = model.encode_video(pixels)
    assert isinstance(video, EncodedVideo)
    assert torch.equal(pixels, before)
    options = {"do_sample": False, "max_new_tokens": 6}
    from_pixels = model.generate(ids, images=[pixels], modalities=["video"], **options)
    assert torch.equal(model.generate(ids, images=[video], modalities=["video"], **options), from_pixels)
    assert torch.equal(model.generate(ids, images=[video], **options), from_pixels)
    logits = model(input_ids=ids, images=[video]).logits
    torch.testing.assert_close(logits, model(input_ids=ids, images=[pixels], modalities="video").logits)


@torch.no_grad()
def test_batches_of_frames_change_nothing(model, video_frames, monkeypatch):
    monkeypatch.setattr(model, "vision_batch_size", 64, raising=False)
    whole, video = model.encode_images(video_frames[:10]), model.encode_video(video_frames[:10])
    for batch_size in (1, 3, 10, None):
        model.vision_batch_size = batch_size
        torch.testing.assert_close(model.encode_images(video_frames[:10]), whole, atol=1e-5, rtol=0)
        torch.testing.assert_close(model.encode_video(video_frames[:10]).embeds, video.embeds, atol=1e-5, rtol=0)


@torch.no_grad()
def test_batches_become_smaller_where_memory_runs_out(model, video_frames, monkeypatch, caplog):
    """As on a GPU whose memory holds five frames; said once, and remembered."""
    sizes = []

    def run_out(module, inputs):
        sizes.append(len(inputs[0]))
        if sizes[-1] > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")

    expected = model.encode_images(video_frames[:10])
    monkeypatch.setattr(model, "vision_batch_size", 16, raising=False)
    handle = model.get_vision_tower().register_forward_pre_hook(run_out)
    try:
        for _ in range(2):
            torch.testing.assert_close(model.encode_images(video_frames[:10]), expected, atol=1e-5, rtol=0)
    finally:
        handle.remove()
    assert sizes == [10, 5, 5, 5, 5]
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory in vision with 16 images at a time: from now on 5"
    ]


@dataclass(frozen=True)
class MostAttended(Scorer):
    """Keeps the patches of each frame that receive most attention in the tower, after the checkpoint's pooling."""

    needs: ClassVar[frozenset[Need]] = frozenset({AttentionReceived()})

    def score(self, tokens, evidence):
        return evidence[AttentionReceived()]


@torch.no_grad()
def test_a_video_is_encoded_with_the_evidence_that_its_compressor_needs(model, video_frames):
    frames = video_frames[:3]
    model.compressor = MostAttended(tokens_per_frame=4)
    features, evidence = model.vision_features(frames, needs=[AttentionReceived()])
    video = model.encode_video(frames)
    assert len(video.plan) == 12
    assert torch.equal(video.embeds, model.encode_features(features, evidence=evidence).embeds)
    assert "AttentionReceived(layer=-1, joined=False)" in [check.stage for check in video.checks]


@torch.no_grad()
def test_evidence_that_is_not_finite_is_noticed(model, video_frames):
    model.compressor = MostAttended(tokens_per_frame=4)
    features, evidence = model.vision_features(video_frames[:3], needs=[AttentionReceived()])
    evidence[AttentionReceived()][5] = float("nan")
    checks = model.encode_features(features, evidence=evidence).checks
    assert [check.stage for check in checks if not check.is_finite] == ["AttentionReceived(layer=-1, joined=False)"]
    assert {check.dtype for check in checks} == {torch.float32}


@torch.no_grad()
def test_features_that_were_kept_give_the_same_video(model, video_frames):
    """Bit for bit, also with another compressor than the one in use when the tower ran."""
    frames = video_frames[:20]
    with torch.inference_mode():
        model.compressor = "none"
        features, evidence = model.vision_features(frames)
        features = features.clone()
        assert evidence == {}
        assert features.shape == (20, 49, model.get_vision_tower().hidden_size)
        for name in ("st_gridpool", "bilinear"):
            model.compressor = name
            expected, kept = model.encode_video(frames), model.encode_features(features)
            assert torch.equal(kept.embeds, expected.embeds)
            assert kept.num_newlines == expected.num_newlines


def test_stages_are_timed(model, video_frames):
    timer = StageTimer("cpu")
    model.encode_video(video_frames[:20], timer=timer)
    assert list(timer.seconds()) == ["vision", "projector", "compress"]
    assert all(seconds > 0 for seconds in timer.seconds().values())


@torch.no_grad()
def test_one_word_holds_for_all_entries(model, video_frames):
    videos = [video_frames[:2], video_frames[4:7]]
    named = model.encode_visuals(videos, ["video", "video"])
    for visual, expected in zip(model.encode_visuals(videos, "video"), named, strict=True):
        assert torch.equal(visual.embeds, expected.embeds)
    stacked = model.encode_visuals(torch.stack([video_frames[:2], video_frames[4:6]]), "video")
    torch.testing.assert_close(stacked[0].embeds, named[0].embeds)


@torch.no_grad()
def test_methods_that_scripts_know(model, video_frames):
    pooled = model.get_2dPool(model.encode_images(video_frames[:2]))
    assert pooled.shape == (2, 16, 64)
    newline = model.model.image_newline
    rows, frames = model.add_token_per_grid(pooled), model.add_token_per_frame(pooled)
    assert rows.shape == (2 * 4 * 5, 64)
    assert torch.equal(rows[4], newline)
    assert torch.equal(rows[5], pooled[0, 4])
    assert torch.equal(rows, model.encode_video(video_frames[:2]).embeds)
    assert frames.shape == (2, 17, 64)
    assert torch.equal(frames[1, 16], newline)
    assert torch.equal(frames[:, :16], pooled)


@torch.no_grad()
def test_errors(model, video_frames, settings):
    with pytest.raises(ValueError, match=r"must be \(images, 3, height, width\), got \(0, 3, 98, 98\)"):
        model.encode_video(video_frames[:0])
    with pytest.raises(ValueError, match=r"must be \(images, 3, height, width\)"):
        model.encode_images(video_frames[0])
    with settings(model.config, mm_newline_position="both"), pytest.raises(ValueError, match="mm_newline_position"):
        model.encode_video(video_frames[:1])
    with settings(model.config, mm_patch_merge_type="square"), pytest.raises(ValueError, match="mm_patch_merge_type"):
        model.encode_video(video_frames[:1])
    with pytest.raises(ValueError, match="7 x 7 patches, got 50"):
        model.get_2dPool(torch.zeros(1, 50, 64))


@torch.no_grad()
@pytest.mark.parametrize("name", ["none", "average", "bilinear", "max", "nsp", "ptg", "st_gridpool"])
def test_encoding_does_not_wait_for_the_device(model, video_frames, name):
    """On the meta device, where no value can be asked for: on a GPU nothing is waited for."""
    on_meta = copy.deepcopy(model).to("meta")
    on_meta.compressor = model.compressor = name
    video = on_meta.encode_video(video_frames[:9].to("meta"))
    expected = model.encode_video(video_frames[:9])
    assert video.embeds.shape == expected.embeds.shape
    assert video.num_newlines == expected.num_newlines
