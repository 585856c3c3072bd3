"""A compressor inside the language model of a checkpoint, after its own pooling or another compressor."""

from dataclasses import dataclass

import pytest
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.encoded_video import EncodedVideo
from stgridpool import STTM, Bilinear, Chain, Compressor, Plan, Step, STGridPool, VideoTokens, compress_tokens
from stgridpool.compressor import PATCHES, TOKENS
from stgridpool.decoder.session import VideoSession
from stgridpool.newlines import NEWLINE_POSITIONS
from stgridpool.scorer import Scorer


@dataclass(frozen=True)
class Positive(Compressor):
    """Keeps the tokens whose first channel is positive, entering layer 0."""

    def plan(self, tokens, evidence):
        return Plan.keep((tokens.features[:, 0] > 0).nonzero().flatten(), len(tokens))

    def steps(self):
        return (Step(self, 0),)


@dataclass(frozen=True)
class PositiveLater(Positive):
    def steps(self):
        return (Step(self, 1),)


@dataclass(frozen=True)
class Largest(Scorer):
    """Keeps the tokens whose second channel is largest, before the language model."""

    def score(self, tokens, evidence):
        return tokens.features[:, 1]


PROMPT = [[1, 2, 3, IMAGE_TOKEN_INDEX, 4, 5, 6]]


@pytest.fixture
def model(video_checkpoint):
    yield video_checkpoint.model
    video_checkpoint.model.compressor = None


@pytest.fixture(scope="module")
def video_frames(video_frames):
    return video_frames[::4]  # 16: four windows


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
    patches = VideoTokens.of(model._as_maps(model.encode_images(video_frames)))
    front, _ = compress_tokens(before or Bilinear(stride=2), patches, {})
    assert front.shape == pooled.plan.shape
    tokens, plan = compress_tokens(Positive(), front, {})
    assert 0 < len(tokens) < len(front)
    by_hand = EncodedVideo.of(tokens, plan, patches.shape, model.model.image_newline, position)
    model.compressor = Positive() if before is None else Chain((before, Positive()))
    assert answer(model, [video_frames]) == answer_without_steps(model, by_hand)
    logits = model(torch.tensor(PROMPT), images=[video_frames], modalities=["video"]).logits
    assert logits.shape[1] == len(PROMPT[0]) - 1 + len(by_hand.embeds)


def answer_without_steps(model, video):
    steps, model.decoder_steps = model.decoder_steps, None
    try:
        return answer(model, [video])
    finally:
        model.decoder_steps = steps


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
    session = VideoSession(model, prefix, model.decoder_steps, [first.span(3)])
    suffix = embed(torch.tensor(PROMPT[0][4:]))
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "repetition_penalty": 1.0}
    assert session.generate([suffix], **options).tolist() == [singles[0]]


def test_what_is_set_and_recorded(model):
    model.compressor = Chain((STGridPool(), PositiveLater()))
    assert model.front_steps == (Step(STGridPool(), PATCHES),)
    assert repr(model.compressor) == f"{STGridPool()!r} + PositiveLater()"
    model.compressor = PositiveLater()
    assert model.front_steps == (Step(Bilinear(stride=2), PATCHES),)
    assert model.compressor == PositiveLater()
    model.compressor = Chain((Largest(), PositiveLater()))
    assert model.front_steps == (Step(Bilinear(stride=2), PATCHES), Step(Largest(), TOKENS))
    model.compressor = None
    assert model.decoder_steps is None
    assert model.compressor == Bilinear(stride=2)
    assert model.front_steps == (Step(Bilinear(stride=2), PATCHES),)


@torch.no_grad()
def test_the_model_inside_takes_no_compressor(model):
    with pytest.raises(AttributeError, match="LlavaQwenModel has no compressor: assign it to the model around it"):
        model.get_model().compressor = "nsp"


def test_what_it_cannot_do_is_said(model, video_frames):
    model.compressor = PositiveLater()
    ids = torch.tensor(PROMPT)
    with pytest.raises(ValueError, match="removes positions, so pass no labels"):
        model(ids, labels=ids, images=[video_frames], modalities=["video"])


@torch.no_grad()
def test_a_pruner_in_front_and_a_method_inside(model, video_frames):
    """Ragged tokens, with newlines of the rows that are left, enter the language model and are pruned again."""
    model.compressor = Chain((Largest(retention=0.4), Positive()))
    video = model.encode_video(video_frames)
    kept = VideoTokens(video.embeds[: video.num_tokens], video.shape, video.cell)
    assert len(kept) == model.compressor.methods[0].planned_count(video.shape) == int(0.4 * len(video_frames) * 16)
    span = video.span(3)
    assert torch.equal(span.cell, video.cell)
    rows = torch.unique(video.cell // 4)
    assert video.num_newlines == len(span.newlines) == len(rows)
    model.compressor = Largest(retention=0.4)
    in_front = model.encode_video(video_frames)
    assert torch.equal(in_front.embeds, video.embeds)
    left = in_front.span(0).tokens[in_front.embeds[in_front.span(0).tokens, 0] > 0]
    tokens = VideoTokens(in_front.embeds[in_front.span(0).tokens], video.shape, video.cell)
    tokens, plan = compress_tokens(Positive(), tokens, {})
    assert len(tokens) == len(left) < len(kept)
    by_hand = EncodedVideo.of(tokens, plan, video.source_shape, model.model.image_newline, "grid")
    expected = answer_without_steps(model, by_hand)
    model.compressor = Chain((Largest(retention=0.4), Positive()))
    assert answer(model, [video]) == expected


@torch.no_grad()
def test_two_methods_inside_the_language_model(model, video_frames):
    """At layer 0 both do what they do before it, one after the other."""
    later = STTM(layer=0, mode="components", retention=0.5)
    model.compressor = Chain((later, Positive()))
    assert [step.compressor for step in model.decoder_steps.steps] == [later, Positive()]
    inside = answer(model, [video_frames])
    plans = model.decoder_steps.last.plans[0]
    model.compressor = None
    front = model.encode_video(video_frames)
    span = front.span(0)
    tokens, plan = compress_tokens(Chain((later, Positive())), VideoTokens(front.embeds[span.tokens], span.shape), {})
    assert [len(step[0]) for step in plans] == [8 * len(video_frames), len(tokens)]
    by_hand = EncodedVideo.of(tokens, plan, front.source_shape, model.model.image_newline, "grid")
    assert answer(model, [by_hand]) == inside
