"""A compressor inside the language model of a checkpoint, behind its own pooling or another compressor."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.layout import NEWLINE_POSITIONS, EncodedVideo, insert_newlines
from stgridpool import Bilinear, Composed, Compressor, Plan, STGridPool
from stgridpool.decoder.session import VideoSession


@dataclass(frozen=True)
class Positive(Compressor):
    """Keeps the tokens whose first channel is positive, entering layer 0."""

    stage: ClassVar[str | int] = 0

    def plan(self, tokens):
        frames, height, width, _ = tokens.shape
        kept = (tokens[..., 0].flatten() > 0).nonzero().flatten()
        place = torch.stack([kept // (height * width), kept // width % height, kept % width], dim=1)
        grid = (frames, height, width)
        return Plan(kept, torch.arange(len(kept) + 1), torch.ones(len(kept)), place=place, grid=grid, shape=grid)


@dataclass(frozen=True)
class PositiveLater(Positive):
    stage: ClassVar[str | int] = 1


PROMPT = [[1, 2, 3, IMAGE_TOKEN_INDEX, 4, 5, 6]]


@pytest.fixture
def model(video_checkpoint):
    yield video_checkpoint.model
    video_checkpoint.model.compressor = None


def answer(model, images, ids=PROMPT, **options):
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "repetition_penalty": 1.0} | options
    return model.generate(torch.tensor(ids), images=images, modalities=["video"] * len(images), **options).tolist()


@pytest.mark.parametrize("position", NEWLINE_POSITIONS)
@pytest.mark.parametrize("before", [None, STGridPool(window=4, levels=1)], ids=["own pooling", "st_gridpool"])
@torch.no_grad()
def test_layer_0_equals_compressing_in_front(model, video_frames, monkeypatch, position, before):
    monkeypatch.setattr(model.config, "mm_newline_position", position)
    model.compressor = before
    pooled = model.encode_video(video_frames)
    grid = model.front_compressor(model._as_maps(model.encode_images(video_frames))).tokens.unflatten(
        0, pooled.plan.shape
    )
    tokens, plan = Positive()(grid)
    newline = model.model.image_newline
    by_hand = EncodedVideo(insert_newlines(tokens, plan.place, newline, position), plan, 0)
    model.compressor = Positive() if before is None else Composed(before, Positive())
    assert answer(model, [video_frames]) == answer_without_stage(model, by_hand)
    logits = model(torch.tensor(PROMPT), images=[video_frames], modalities=["video"]).logits
    assert logits.shape[1] == len(PROMPT[0]) - 1 + len(by_hand.embeds)


def answer_without_stage(model, video):
    stage, model.llm_stage = model.llm_stage, None
    try:
        return answer(model, [video])
    finally:
        model.llm_stage = stage


@torch.no_grad()
def test_batches_several_videos_and_a_shared_prefix(model, video_frames):
    model.compressor = PositiveLater()
    first, second = (model.encode_video(frames) for frames in (video_frames, video_frames[:2].flip(0)))
    longer = [[9, 8, *PROMPT[0], 7]]
    padded = [[0, 0, 0, *PROMPT[0]], longer[0]]
    mask = torch.tensor([[0] * 3 + [1] * 7, [1] * 10])
    singles = [answer(model, [video], ids)[0] for video, ids in ((first, PROMPT), (second, longer))]
    assert answer(model, [first, second], padded, attention_mask=mask) == singles
    two = [[*PROMPT[0], *PROMPT[0]]]
    one_by_one = [model.encode_video(frames) for frames in (video_frames, video_frames[:2].flip(0))]
    assert answer(model, one_by_one, two) == answer(model, [video_frames, video_frames[:2].flip(0)], two)
    embed = model.get_input_embeddings()
    prefix = torch.cat([embed(torch.tensor(PROMPT[0][:3])), first.embeds])
    session = VideoSession(model, prefix, model.llm_stage, [first.span(3)])
    suffix = embed(torch.tensor(PROMPT[0][4:]))
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "repetition_penalty": 1.0}
    assert session.generate([suffix], **options).tolist() == [singles[0]]


def test_what_is_set_and_recorded(model):
    model.compressor = Composed(STGridPool(), PositiveLater())
    assert model.front_compressor == STGridPool()
    assert repr(model.compressor) == f"{STGridPool()!r} + PositiveLater()"
    model.compressor = PositiveLater()
    assert model.front_compressor == Bilinear(stride=2)
    assert model.compressor == PositiveLater()
    model.compressor = None
    assert model.llm_stage is None
    assert model.compressor == model.front_compressor == Bilinear(stride=2)


@torch.no_grad()
def test_what_it_cannot_do_is_said(model, video_frames):
    model.compressor = PositiveLater()
    ids = torch.tensor(PROMPT)
    with pytest.raises(ValueError, match="leaves no label its logit"):
        model(ids, labels=ids, images=[video_frames], modalities=["video"])
    tokens, plan = Positive()(torch.randn(2, 3, 3, 4))
    with pytest.raises(ValueError, match=r"tokens do not fill a grid of \(2, 3, 3\)"):
        EncodedVideo(tokens, plan, 0).span(0)
