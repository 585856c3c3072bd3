"""Sharing a prefix: the same answers as whole prompts."""

import pytest
import torch
from transformers import GenerationMixin, GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from stgridpool import Step, build_compressor
from stgridpool.compressor import POSITIONS
from stgridpool.decoder.decoder import TransformersDecoder
from stgridpool.decoder.session import VideoSession
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.decoder.steps import DecoderSteps

pytestmark = pytest.mark.contract

WIDTH = 32


@pytest.fixture(scope="module")
def model(make_decoder):
    return make_decoder(num_layers=3, eos_token_id=1)


@pytest.fixture
def prompts():
    generator = torch.Generator().manual_seed(1)
    prefix = torch.randn(40, WIDTH, generator=generator)
    suffixes = [torch.randn(length, WIDTH, generator=generator) for length in (7, 1, 12, 5, 7)]
    return prefix, suffixes


def whole(model, prefix, suffix, **options):
    """The answer to a prompt that shares nothing."""
    embeds = torch.cat([prefix, suffix])[None]
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    with torch.inference_mode():
        return GenerationMixin.generate(model, inputs_embeds=embeds, attention_mask=mask, **options)[0]


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.3}, {"num_beams": 3}], ids=str)
def test_one_by_one_equals_whole_prompts(model, prompts, options):
    prefix, suffixes = prompts
    options = {"do_sample": False, "max_new_tokens": 5, **options}
    session = VideoSession(model, prefix)
    for suffix in [*suffixes, suffixes[0]]:
        assert session.generate([suffix], **options)[0].tolist() == whole(model, prefix, suffix, **options).tolist()


class NotingDecoder(TransformersDecoder):
    """Notes what is prefilled."""

    def __init__(self, model):
        super().__init__(model)
        self.prefilled = []

    def prefill(self, embeds, cache):
        self.prefilled.append(embeds)
        super().prefill(embeds, cache)


@pytest.mark.parametrize("place", ["given", "of the steps"])
def test_the_prefix_is_prefilled_by_the_decoder(model, prompts, place):
    prefix, suffixes = prompts
    decoder, options = NotingDecoder(model), {"do_sample": False, "max_new_tokens": 4}
    if place == "given":
        session = VideoSession(model, prefix, decoder=decoder)
        assert (
            session.generate(suffixes[:1], **options)[0].tolist()
            == whole(model, prefix, suffixes[0], **options).tolist()
        )
    else:
        span = VisualSpan(torch.arange(2, 38), (1, 6, 6), torch.empty(0, dtype=torch.long))
        steps = DecoderSteps(decoder, [Step(build_compressor("average"), 1)])
        assert VideoSession(model, prefix, steps, [span]).layer_lengths() == [40, 13, 13]
    assert len(decoder.prefilled) == 1
    assert torch.equal(decoder.prefilled[0], prefix[None])


def test_a_model_whose_layers_are_not_known_is_refused(prompts):
    with pytest.raises(ValueError, match="GPT2LMHeadModel is not a decoder like Qwen2 or Llama: it has no layers"):
        VideoSession(GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=9)), prompts[0])


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_a_batch_equals_whole_prompts(model, prompts, penalty):
    prefix, suffixes = prompts
    options = {"do_sample": False, "max_new_tokens": 5, "repetition_penalty": penalty}
    session = VideoSession(model, prefix)
    rows = session.generate(suffixes, **options)
    for row, suffix in zip(rows, suffixes, strict=True):
        expected = whole(model, prefix, suffix, **options).tolist()
        assert row[: len(expected)].tolist() == expected
        assert not row[len(expected) :].any()
    assert len({tuple(row.tolist()) for row in rows}) > 2  # the answers differ, or the test would show nothing


def test_logits_equal_those_of_whole_prompts(model, prompts):
    prefix, suffixes = prompts
    session = VideoSession(model, prefix)
    for suffix in suffixes:
        with torch.inference_mode():
            expected = model(inputs_embeds=torch.cat([prefix, suffix])[None]).logits[0, len(prefix) :]
        torch.testing.assert_close(session.logits(suffix), expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(session.logits(suffix, num_last=1), expected[-1:], atol=1e-4, rtol=0)


def test_the_prefix_is_computed_once(model, prompts, monkeypatch):
    prefix, suffixes = prompts
    lengths = []
    handle = model.base_model.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append((args[0] if args else kwargs["hidden_states"]).shape[1]),
        with_kwargs=True,
    )
    try:
        session = VideoSession(model, prefix)
        session.generate(suffixes, do_sample=False, max_new_tokens=3)
        session.generate(suffixes[:1], do_sample=False, max_new_tokens=1)
    finally:
        handle.remove()
    assert lengths == [40, 12, 1, 1, 7]


def test_a_fork_shares_the_prefix_and_leaves_it_alone(model, prompts):
    prefix, suffixes = prompts
    session = VideoSession(model, prefix)
    before = session._cache.layers[0].keys
    assert session._fork(1).layers[0].keys.data_ptr() == before.data_ptr()
    copy = before.clone()
    session.generate(suffixes, do_sample=False, max_new_tokens=3)
    assert session._cache.layers[0].keys is before
    assert torch.equal(before, copy)


def test_bad_input(model, prompts):
    prefix, _ = prompts
    with pytest.raises(ValueError, match=r"prefix must be .*, got \(0, 32\)"):
        VideoSession(model, prefix[:0])
    with pytest.raises(ValueError, match="every suffix must have at least one position"):
        VideoSession(model, prefix).generate([prefix[:0]])


def test_layers_that_forget_are_refused():
    config = Qwen2Config(
        vocab_size=9,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=1,
    )
    with pytest.raises(ValueError, match="DynamicSlidingWindowLayer"):
        VideoSession(Qwen2ForCausalLM(config), torch.zeros(3, 8))


@pytest.mark.parametrize(
    ("layer", "positions", "decode_gap"),
    [(layer, name, (layer + index) % 2 == 1) for layer in range(3) for index, name in enumerate(POSITIONS)],
)
def test_a_prefix_that_steps_shorten_is_shared(model, prompts, layer, positions, decode_gap):
    prefix, suffixes = prompts[0], prompts[1][:3]
    span = VisualSpan(torch.arange(4, 40), (4, 3, 3), torch.empty(0, dtype=torch.long))
    steps = DecoderSteps(TransformersDecoder(model), [Step(build_compressor("bilinear"), layer, positions, decode_gap)])
    session = VideoSession(model, prefix, steps, [span])
    assert session.compressed.kept[0].sum() == 4 + 4 * 2 * 2  # 3x3 tokens of a frame become 2x2
    options = {"do_sample": False, "max_new_tokens": 5}

    def unshared(suffix):
        with steps.prompts([[span]]):
            return whole(model, prefix, suffix, **options).tolist()

    expected = [unshared(suffix) for suffix in suffixes]
    assert session.generate(suffixes, **options).tolist() == expected
    assert [session.generate([suffix], **options)[0].tolist() for suffix in suffixes] == expected
    assert session.generate(suffixes[:1], num_beams=2, **options).tolist()  # rows of one prompt
    for suffix in suffixes:
        with steps.prompts([[span]]), torch.inference_mode():
            logits = model(inputs_embeds=torch.cat([prefix, suffix])[None]).logits[0, -len(suffix) :]
        torch.testing.assert_close(session.logits(suffix), logits, atol=1e-4, rtol=0)
