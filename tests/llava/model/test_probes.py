"""Methods of every kind on a tiny checkpoint: counts are the planned ones, tokens those of a run by hand."""

import pytest
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from stgridpool import Bilinear, FasterVLM, Random, Stride, VideoTokens, VisionZip, build_compressor, compress
from stgridpool.evidence import AttentionReceived, TowerKeys

PROMPT = [[1, 2, 3, IMAGE_TOKEN_INDEX, 4, 5, 6]]
NEEDS = (AttentionReceived(), TowerKeys())


@pytest.fixture
def model(video_checkpoint, monkeypatch):
    monkeypatch.setattr(video_checkpoint.model.config, "mm_newline_position", "no_token")
    yield video_checkpoint.model
    video_checkpoint.model.compressor = None


def pooled_by_hand(model, frames):
    """Patches, pooled as the checkpoint asks for, and evidence that went the same way."""
    features, evidence = model.vision_features(frames, needs=NEEDS)
    tokens, pooling = compress(Bilinear(), VideoTokens.of(model._as_maps(model.project(features))), {})
    carried = {
        NEEDS[0]: pooling.mean(evidence[NEEDS[0]][:, None])[:, 0],
        NEEDS[1]: pooling.mean(evidence[NEEDS[1]]),
    }
    return tokens, carried


@pytest.mark.parametrize(
    "method",
    [Random(seed=3), Stride(retention=0.3), Stride(temporal=3, spatial=2), FasterVLM(), VisionZip(retention=0.4)],
    ids=lambda method: type(method).__name__,
)
@torch.no_grad()
def test_in_front_of_the_language_model(model, video_frames, method):
    frames = video_frames[:8]
    model.compressor = method
    video = model.encode_video(frames)
    tokens, evidence = pooled_by_hand(model, frames)
    left, plan = compress(method, tokens, evidence)
    assert video.num_tokens == len(plan) == method.planned_count(tokens.shape) < len(tokens)
    assert torch.equal(video.embeds, left.features)
    assert (video.shape, video.cell is None) == (left.shape, plan.shape is not None)
    logits = model(torch.tensor(PROMPT), images=[frames], modalities=["video"]).logits
    assert logits.shape[1] == len(PROMPT[0]) - 1 + len(plan)


@torch.no_grad()
def test_a_method_behind_a_method_is_named_by_the_user(model, video_frames):
    frames = video_frames[:6]
    model.compressor = VisionZip(tokens=50)
    expected = model.encode_video(frames)
    model.compressor = build_compressor("bilinear+visionzip", visionzip={"tokens": 50})
    video = model.encode_video(frames)
    assert torch.equal(video.embeds, expected.embeds)
    assert torch.equal(video.plan.anchor, expected.plan.anchor)
    assert len(video.embeds) == 50
    # What is inside the language model gets to see the tokens' own evidence.
    tokens, evidence = pooled_by_hand(model, frames)
    plan = VisionZip(tokens=50).plan(tokens, evidence)
    torch.testing.assert_close(video.evidence[NEEDS[1]], plan.mean(evidence[NEEDS[1]]))
