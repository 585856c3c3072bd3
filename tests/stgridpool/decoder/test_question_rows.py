"""Steps that look at rows of the question: attention, its rotary bias, and the question's own embeddings."""

import math
from dataclasses import dataclass, field

import pytest
import torch

from stgridpool import Compressor, Need, Plan, Step
from stgridpool.decoder.decoder import TransformersDecoder
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.decoder.steps import DecoderSteps
from stgridpool.evidence import QueryAttention, Question, RotaryBias

pytestmark = pytest.mark.contract

SHAPE, NUM_VISUAL, BEFORE, WIDTH = (3, 2, 2), 12, 3, 32
NONE = torch.empty(0, dtype=torch.long)


@dataclass(frozen=True)
class Every(Compressor):
    """Keeps every n-th token and notes evidence."""

    needs_maps = False

    need: Need | None = None
    stride: int = 1
    notes: list = field(default_factory=list, compare=False)

    @property
    def needs(self):
        return frozenset() if self.need is None else frozenset({self.need})

    def plan(self, tokens, evidence):
        self.notes.extend(evidence.values())
        return Plan.keep(torch.arange(0, len(tokens), self.stride), len(tokens))


@pytest.fixture(scope="module")
def model(make_decoder):
    return make_decoder(num_layers=4, attn_implementation="eager")


def make_prompt(seed, after):
    return torch.randn(BEFORE + NUM_VISUAL + after, WIDTH, generator=torch.Generator().manual_seed(seed))


def span(**settings):
    return VisualSpan(torch.arange(BEFORE, BEFORE + NUM_VISUAL), SHAPE, NONE, **settings)


def run(model, prompts, steps, **evidence):
    """One forward of prompts (n_i, D), padded on the left."""
    longest = max(map(len, prompts))
    embeds = torch.stack([torch.cat([prompt.new_ones(longest - len(prompt), WIDTH), prompt]) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    steps = DecoderSteps(TransformersDecoder(model), steps)
    with torch.inference_mode(), steps.prompts([[span(**evidence)] for _ in prompts]):
        model(inputs_embeds=embeds, attention_mask=mask)


def raters(prompt):
    """Rows of the question that get more than the mean share of the visual tokens, or all if none does."""
    visual, text = prompt[BEFORE : BEFORE + NUM_VISUAL].double(), prompt[BEFORE + NUM_VISUAL :].double()
    share = torch.zeros(len(text), dtype=torch.float64)
    for one in visual:
        products = torch.stack([one @ other for other in text]).exp()
        share += products / products.sum()
    chosen = (share > share.mean()).nonzero().flatten().tolist() or range(len(text))
    return [BEFORE + NUM_VISUAL + index for index in chosen]


def test_relevant_rows_are_chosen_once_from_what_enters_the_language_model(model):
    prompts = [make_prompt(seed, after) for seed, after in ((1, 9), (2, 6), (3, 1))]
    rows = [raters(prompt) for prompt in prompts]
    assert [len(own) for own in rows[:2]] != [9, 6]  # some must be left out
    every = Every(QueryAttention(2, "relevant", "none"))
    run(model, prompts, [Step(every, 3)])
    for prompt, own, found in zip(prompts, rows, every.notes, strict=True):
        with torch.inference_mode():
            weights = model.model(inputs_embeds=prompt[None], output_attentions=True).attentions[2][0]
        expected = weights[:, own, BEFORE : BEFORE + NUM_VISUAL].permute(2, 0, 1)
        assert expected.shape[1:] == (4, len(own))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    mean = Every(QueryAttention(2, "relevant"))
    run(model, prompts, [Step(mean, 3)])
    for found, expected in zip(mean.notes, every.notes, strict=True):
        torch.testing.assert_close(found, expected.mean(dim=(1, 2)))


def test_relevant_rows_stay_where_earlier_steps_shorten_the_prompt(model):
    prompt = make_prompt(1, 9)
    every = Every(QueryAttention(2, "relevant", "none"))
    run(model, [prompt], [Step(Every(stride=3), 0), Step(Every(stride=2), 1), Step(every, 2)])
    assert every.notes[0].shape == (2, 4, len(raters(prompt)))


def test_rotary_bias_is_the_product_of_ones_at_their_positions(model):
    """For positions p and q it is 2 / sqrt(d) times the sum of the cosines of (p - q) * theta_u."""
    prompt, bias = make_prompt(1, 5), Every(RotaryBias(2, "question"))
    run(model, [prompt, make_prompt(2, 8)], [Step(Every(stride=2), 1, "survive"), Step(bias, 2)])
    width, base = 8, model.config.rope_parameters["rope_theta"]
    for found, length in zip(bias.notes, (5, 8), strict=True):
        columns = range(BEFORE, BEFORE + NUM_VISUAL, 2)
        rows = range(BEFORE + NUM_VISUAL, BEFORE + NUM_VISUAL + length)
        angles = [base ** (-2 * u / width) for u in range(width // 2)]
        expected = [[2 / math.sqrt(width) * sum(math.cos((p - q) * a) for a in angles) for p in rows] for q in columns]
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)


def test_the_questions_embeddings_reach_a_step_inside(model):
    question, every = Question("decoder"), Every(Question("decoder"))
    words = torch.randn(4, WIDTH)
    run(model, [make_prompt(1, 5)], [Step(Every(stride=2), 1), Step(every, 2)], evidence={question: words})
    assert len(every.notes) == 1
    assert torch.equal(every.notes[0], words)
    assert DecoderSteps(TransformersDecoder(model), [Step(every, 2)]).query_aware


def test_relevant_rows_need_a_question(model):
    need = QueryAttention(1, "relevant")
    with pytest.raises(ValueError, match=r"QueryAttention\(layer=1, rows='relevant', .* needs text after the last vi"):
        run(model, [make_prompt(1, 0)], [Step(Every(need), 2)])
