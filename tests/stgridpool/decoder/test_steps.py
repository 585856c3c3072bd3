"""A compressor inside the language model, against the decoder's layers called one by one without cache or padding."""

from dataclasses import dataclass

import pytest
import torch
from transformers import GenerationMixin

from stgridpool import Compressor, Plan, Step, build_compressor
from stgridpool.compressor import POSITIONS
from stgridpool.decoder.decoder import TransformersDecoder
from stgridpool.decoder.kv_cache import find_cache
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.decoder.steps import DecoderSteps
from stgridpool.video_tokens import unravel

pytestmark = pytest.mark.contract

WIDTH, GRID = 32, (3, 4, 4)
NUM_VISUAL = 48
BEFORE, AFTER = 5, 7
NUM_NEW = 3


@dataclass(frozen=True)
class Positive(Compressor):
    """Keeps the tokens whose first channel is positive: how many depends on the video."""

    def plan(self, tokens, evidence):
        return Plan.keep((tokens.features[:, 0] > 0).nonzero().flatten(), len(tokens))


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request, make_decoder):
    return make_decoder(num_layers=4, attn_implementation=request.param)


def make_prompt(seed, after=AFTER):
    return torch.randn(BEFORE + NUM_VISUAL + after, WIDTH, generator=torch.Generator().manual_seed(seed))


def span(start=BEFORE):
    return VisualSpan(torch.arange(start, start + NUM_VISUAL), GRID, torch.empty(0, dtype=torch.long))


def steps_of(model, *steps):
    return DecoderSteps(TransformersDecoder(model), steps)


def generate(model, prompts, steps=None, spans=None, **options):
    """Greedy answers to prompts (n_i, D) as one batch, padded on the left."""
    longest = max(map(len, prompts))
    embeds = torch.stack([torch.cat([prompt.new_ones(longest - len(prompt), WIDTH), prompt]) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    options = {"max_new_tokens": NUM_NEW, "do_sample": False, "inputs_embeds": embeds, "attention_mask": mask} | options
    with torch.inference_mode():
        if steps is None:
            return GenerationMixin.generate(model, **options)
        with steps.prompts(spans or [[span()]] * len(prompts)):
            return GenerationMixin.generate(model, **options)


@torch.inference_mode()
def by_hand(model, prompt, answer, compressor, layer, positions, gap=False):
    """Logits at the end of the prompt and after each token of the answer: layer by layer, the whole text at once."""
    decoder, num_prompt = model.model, len(prompt)
    hidden = torch.cat([prompt, decoder.embed_tokens(answer)])
    length = len(hidden)
    tables = [table[0] for table in decoder.rotary_emb(hidden[None], torch.arange(length)[None])]
    for index, block in enumerate(decoder.layers):
        if index == layer:
            compressed, plan = compressor(hidden[BEFORE : BEFORE + NUM_VISUAL].view(*GRID, WIDTH))
            cells = plan.anchor
            if plan.shape is not None:  # the first token of every window
                places = unravel(torch.arange(len(plan)), plan.shape)
                cells = (places * torch.tensor(GRID) // torch.tensor(plan.shape)) @ torch.tensor([16, 4, 1])
            text = torch.arange(BEFORE + NUM_VISUAL, length)
            old = torch.cat([torch.arange(BEFORE), BEFORE + cells, text])  # the position that each token had
            hidden = torch.cat([hidden[:BEFORE], compressed, hidden[text]])
            new_prompt = num_prompt - NUM_VISUAL + len(cells)
            if positions == "reassign":
                new = torch.arange(len(hidden))
                new[new_prompt:] += (num_prompt - new_prompt) * gap
                tables = [table[0] for table in decoder.rotary_emb(hidden[None], new[None])]
            else:
                visual = [table[BEFORE : BEFORE + NUM_VISUAL] for table in tables]
                kept = [plan.apply(rows) if positions == "merge" else rows[cells] for rows in visual]
                tables = [
                    torch.cat([table[:BEFORE], rows, table[text]]) for table, rows in zip(tables, kept, strict=True)
                ]
            assert len(old) == len(hidden)
        count = len(hidden)
        mask = torch.full((count, count), torch.finfo(torch.float32).min).triu(1)[None, None]
        embeddings = (tables[0][None], tables[1][None])
        hidden = block(hidden[None], attention_mask=mask, position_embeddings=embeddings)[0]
    return model.lm_head(decoder.norm(hidden))[-len(answer) - 1 :]


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("layer", [0, 1, 3])
@pytest.mark.parametrize("compressor", [Positive(), build_compressor("average")], ids=["positive", "average"])
def test_prompt_and_answer_equal_the_layers_called_by_hand(model, compressor, layer, positions):
    prompt, steps = make_prompt(1), steps_of(model, Step(compressor, layer, positions))
    output = generate(model, [prompt], steps, output_logits=True, return_dict_in_generate=True)
    expected = by_hand(model, prompt, output.sequences[0], compressor, layer, positions)[:-1]
    torch.testing.assert_close(torch.cat(output.logits), expected, atol=1e-4, rtol=0)
    lengths = [find_cache((), output).get_seq_length(index) for index in range(4)]
    removed = NUM_VISUAL - len(compressor(prompt[BEFORE : BEFORE + NUM_VISUAL].view(*GRID, WIDTH)).plan)
    if layer == 0 or compressor == build_compressor("average"):  # the count does not depend on deeper hidden states
        full = len(prompt) + NUM_NEW - 1
        assert lengths == [full] * layer + [full - removed] * (4 - layer)


def test_released_sttm_leaves_a_gap_before_generated_tokens(model):
    prompt, compressor = make_prompt(1), build_compressor("average")
    steps = steps_of(model, Step(compressor, 2, decode_gap=True))
    output = generate(model, [prompt], steps, output_logits=True, return_dict_in_generate=True)
    logits = torch.cat(output.logits)
    expected = by_hand(model, prompt, output.sequences[0], compressor, 2, "reassign", gap=True)[:-1]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    closed = by_hand(model, prompt, output.sequences[0], compressor, 2, "reassign")[:-1]
    torch.testing.assert_close(logits[0], closed[0], atol=1e-4, rtol=0)  # the prompt has none
    assert (logits[1:] - closed[1:]).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["average", "st_gridpool"])
def test_layer_0_equals_compressing_before_the_language_model(model, name):
    prompt, compressor = make_prompt(2), build_compressor(name)
    tokens, _ = compressor(prompt[BEFORE : BEFORE + NUM_VISUAL].view(*GRID, WIDTH))
    before = torch.cat([prompt[:BEFORE], tokens, prompt[BEFORE + NUM_VISUAL :]])
    expected = generate(model, [before], output_logits=True, return_dict_in_generate=True)
    inside = generate(
        model, [prompt], steps_of(model, Step(compressor, 0)), output_logits=True, return_dict_in_generate=True
    )
    assert inside.sequences.tolist() == expected.sequences.tolist()
    torch.testing.assert_close(torch.cat(inside.logits), torch.cat(expected.logits), atol=1e-4, rtol=0)


@pytest.mark.parametrize("positions", POSITIONS)
def test_keeping_everything_changes_no_logit(model, positions):
    prompt = make_prompt(3)
    plain = generate(model, [prompt], output_logits=True, return_dict_in_generate=True)
    for layer in range(4):
        steps = steps_of(model, Step(build_compressor("none"), layer, positions, decode_gap=True))
        output = generate(model, [prompt], steps, output_logits=True, return_dict_in_generate=True)
        assert torch.equal(torch.cat(output.logits), torch.cat(plain.logits))


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}], ids=str)
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("layer", [0, 2])
def test_a_padded_batch_equals_single_prompts(model, layer, positions, options):
    prompts = [make_prompt(seed, after) for seed, after in ((4, 7), (5, 2), (6, 11))]
    steps = steps_of(model, Step(Positive(), layer, positions))
    batch = generate(model, prompts, steps, **options)
    singles = [generate(model, [prompt], steps, **options)[0].tolist() for prompt in prompts]
    assert batch.tolist() == singles
    with steps.prompts([[span()]] * 3) as prompted, torch.inference_mode():
        model(inputs_embeds=torch.stack([prompt[:54] for prompt in prompts]))
    assert prompted.kept[0].sum(dim=1).unique().numel() == 3  # the rows keep different numbers of tokens


def test_prompts_padded_on_the_right(model):
    prompts = [make_prompt(seed, after) for seed, after in ((4, 7), (5, 2))]
    steps = steps_of(model, Step(Positive(), 2))
    embeds = torch.stack([prompts[0], torch.cat([prompts[1], torch.ones(5, WIDTH)])])
    mask = torch.tensor([[1] * 60, [1] * 55 + [0] * 5])
    with torch.inference_mode():
        with steps.prompts([[span()]] * 2):
            both = model(inputs_embeds=embeds, attention_mask=mask).logits
        for row, prompt in enumerate(prompts):
            with steps.prompts([[span()]]):
                alone = model(inputs_embeds=prompt[None]).logits[0]
            torch.testing.assert_close(both[row, -len(alone) :], alone, atol=1e-4, rtol=0)


def test_two_videos_and_a_prompt_without_one(model):
    double = torch.cat([make_prompt(7), make_prompt(8)])
    text = make_prompt(9)[:20]
    spans = [[span(), span(BEFORE + 60)], []]
    steps = steps_of(model, Step(Positive(), 0))
    batch = generate(model, [double, text], steps, spans)
    pieces = [make_prompt(seed) for seed in (7, 8)]
    kept = [
        torch.cat([piece[:BEFORE], Positive()(piece[BEFORE:53].view(*GRID, WIDTH))[0], piece[53:]]) for piece in pieces
    ]
    assert batch[0].tolist() == generate(model, [torch.cat(kept)])[0].tolist()
    assert batch[1].tolist() == generate(model, [text])[0].tolist()


def test_newlines_stay_where_a_token_of_their_row_does(model):
    rows = torch.arange(12) * 5 + BEFORE  # a newline after each of 12 rows of 4 tokens
    tokens = (rows[:, None] + torch.arange(4)).flatten()
    prompt = torch.randn(BEFORE + 60 + AFTER, WIDTH, generator=torch.Generator().manual_seed(10))
    prompt[:, 0] = 1
    prompt[tokens[20:28], 0] = -1  # rows 5 and 6 lose all tokens
    prompt[tokens[31], 0] = -1  # row 7 loses its last
    steps = steps_of(model, Step(Positive(), 0))
    with steps.prompts([[VisualSpan(tokens, GRID, rows + 4)]]) as prompted, torch.inference_mode():
        inside = model(inputs_embeds=prompt[None]).logits[0]
        gone = torch.cat([tokens[20:28], tokens[31:32], rows[5:7] + 4])
        left = torch.tensor([index for index in range(len(prompt)) if index not in gone.tolist()])
    with torch.inference_mode():
        before = model(inputs_embeds=prompt[left][None]).logits[0]
    torch.testing.assert_close(inside, before, atol=1e-4, rtol=0)
    assert prompted.num_newlines == [[10]]
    assert prompted.kept[0].sum() == len(left)


def test_hooks_are_gone_after_the_block_and_after_an_error(model):
    steps = steps_of(model, Step(Positive(), 1))
    with pytest.raises(ValueError, match="a video ends at position 52 of a prompt of 30 tokens"):
        generate(model, [make_prompt(1)[:30]], steps)
    modules = [model.model, *model.model.layers]
    assert not any(module._forward_pre_hooks for module in modules)
    generate(model, [make_prompt(1)], steps)
    assert not any(module._forward_pre_hooks for module in modules)


def test_bad_options_are_named(model):
    with pytest.raises(ValueError, match="layer must be at least 0 and below the model's 4 layers, got 4"):
        steps_of(model, Step(Positive(), 4))
    with pytest.raises(ValueError, match="positions must be one of reassign, survive, merge, got 'keep'"):
        steps_of(model, Step(Positive(), 1, "keep"))
    steps = steps_of(model, Step(Positive(), 1))
    with pytest.raises(ValueError, match="the batch must hold 2 prompts or a multiple, got 1 rows"):
        generate(model, [make_prompt(1)], steps, [[span()]] * 2)
