"""Several steps, against the eager layers called one by one on explicitly shortened sequences, and their attention."""

from dataclasses import dataclass, field

import pytest
import torch
from transformers import GenerationMixin

from stgridpool import Compressor, FastV, Need, Plan, PyramidDrop, Step, build_compressor, compress_tokens
from stgridpool.compressors.pyramid_drop import PyramidDropLayer
from stgridpool.decoder.decoder import TransformersDecoder
from stgridpool.decoder.session import VideoSession
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.decoder.steps import DecoderSteps
from stgridpool.evidence import AttentionReceived, QueryAttention, Question, through
from stgridpool.video_tokens import VideoTokens

pytestmark = pytest.mark.contract

WIDTH, SHAPE, NUM_VISUAL, BEFORE, NUM_LAYERS = 32, (3, 4, 4), 48, 5, 5
NUM_NEW = 3
NONE = torch.empty(0, dtype=torch.long)
AVERAGE = build_compressor("average")


@dataclass(frozen=True)
class Positive(Compressor):
    """Keeps the tokens with a positive channel."""

    needs_maps = False

    channel: int = 0

    def plan(self, tokens, evidence):
        return Plan.keep((tokens.features[:, self.channel] > -0.3).nonzero().flatten(), len(tokens))


@dataclass(frozen=True)
class Noting(Compressor):
    """Keeps everything and notes evidence."""

    need: Need
    notes: list = field(default_factory=list, compare=False)

    @property
    def needs(self):
        return frozenset({self.need})

    def plan(self, tokens, evidence):
        self.notes.append(evidence[self.need])
        return Plan.keep(torch.arange(len(tokens)), len(tokens), tokens.shape if tokens.cell is None else None)


COMBINATIONS = {
    "merger, fastv, drop": (
        Step(AVERAGE, 1, "merge"),
        Step(FastV(layer=3), 3, "survive"),
        Step(PyramidDropLayer(0.4, layer=4), 4),
    ),
    "gap, two at a layer": (
        Step(AVERAGE, 0, "reassign", decode_gap=True),
        Step(Positive(), 2, "survive"),
        Step(Positive(1), 2, "merge"),
        Step(Positive(2), 4, "reassign", decode_gap=True),
    ),
    "pyramid": PyramidDrop(layers=(1, 2, 4)).steps(),
    "pyramid that survives": PyramidDrop(layers=(0, 3), keep=(0.7, 0.4), positions="survive").steps(),
    "drops at a layer": (
        Step(FastV(layer=2, retention=0.6), 2, "reassign"),
        Step(PyramidDropLayer(0.5, layer=2), 2, "survive"),
    ),
}


@pytest.fixture(scope="module")
def eager(make_decoder):
    return make_decoder(num_layers=NUM_LAYERS, attn_implementation="eager")


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request, make_decoder):
    return make_decoder(num_layers=NUM_LAYERS, attn_implementation=request.param)


def make_prompt(seed, after=7):
    return torch.randn(BEFORE + NUM_VISUAL + after, WIDTH, generator=torch.Generator().manual_seed(seed))


def span(start=BEFORE, **settings):
    return VisualSpan(torch.arange(start, start + NUM_VISUAL), SHAPE, NONE, **settings)


def steps_of(model, steps):
    return DecoderSteps(TransformersDecoder(model), steps)


def generate(model, prompts, steps, spans=None, **options):
    """Greedy answers to prompts (n_i, D) as one batch, padded on the left."""
    longest = max(map(len, prompts))
    embeds = torch.stack([torch.cat([prompt.new_ones(longest - len(prompt), WIDTH), prompt]) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    options = {"max_new_tokens": NUM_NEW, "do_sample": False, "inputs_embeds": embeds, "attention_mask": mask} | options
    with torch.inference_mode(), steps.prompts(spans or [[span()]] * len(prompts)):
        return GenerationMixin.generate(model, **options)


class Reference:
    """One prompt and its answer, whole, through the eager layers; everything is shortened explicitly."""

    @torch.inference_mode()
    def __init__(self, model, prompt, answer):
        self.decoder, self.model = model.model, model
        self.hidden = torch.cat([prompt, self.decoder.embed_tokens(answer)])
        self.visual, self.num_prompt = torch.arange(BEFORE, BEFORE + NUM_VISUAL), len(prompt)
        self.tables = self.rotary(torch.arange(len(self.hidden)))
        self.shape, self.cell, self.history, self.weights, self.plans = SHAPE, None, (), {}, []

    def rotary(self, positions):
        return [table[0] for table in self.decoder.rotary_emb(self.hidden[None], positions[None])]

    def inputs(self):
        count = len(self.hidden)
        mask = torch.full((count, count), torch.finfo(torch.float32).min).triu(1)[None, None]
        return {"attention_mask": mask, "position_embeddings": tuple(table[None] for table in self.tables)}

    def attention(self, index):
        """Weights of the last prompt token to the visual tokens, as the eager layer itself returns them."""
        block = self.decoder.layers[index]
        weights = block.self_attn(block.input_layernorm(self.hidden[None]), **self.inputs())[1][0]
        return weights[:, self.num_prompt - 1, self.visual].mean(dim=0)

    def shorten(self, step):
        tokens = VideoTokens(self.hidden[self.visual], self.shape, self.cell, before=self.history)
        left, plan = compress_tokens(step.compressor, tokens, self.weights)
        self.plans.append(plan)
        targets = self.visual[plan.anchor]
        text = torch.tensor([place for place in range(len(self.hidden)) if place not in self.visual.tolist()])
        old = torch.cat([targets, text]).sort().values  # what remains, by its place before
        hidden = self.hidden.index_copy(0, targets, left.features)[old]
        tables = [table[old] for table in self.tables]
        if step.positions == "merge":
            merged = [table.index_copy(0, targets, plan.apply(table[self.visual])) for table in self.tables]
            tables = [table[old] for table in merged]
        self.num_prompt -= len(self.hidden) - len(old)
        self.hidden, self.visual = hidden, torch.searchsorted(old, targets)
        if step.positions == "reassign":
            end = self.num_prompt if step.decode_gap else len(old)
            counted = self.rotary(torch.arange(len(old)))
            tables = [torch.cat([new[:end], same[end:]]) for new, same in zip(counted, tables, strict=True)]
        self.tables = tables
        self.shape, self.cell, self.history = left.shape, left.cell, left.before
        self.weights = through(self.weights, plan)

    @torch.inference_mode()
    def logits(self, steps, num_answer):
        for index, block in enumerate(self.decoder.layers):
            for step in steps:
                if step.place == index:
                    self.weights = {**self.weights, QueryAttention(index): self.attention(index)}
                    self.shorten(step)
            self.weights = {**self.weights, QueryAttention(index): self.attention(index)}
            self.hidden = block(self.hidden[None], **self.inputs())[0]
        return self.model.lm_head(self.decoder.norm(self.hidden))[-num_answer - 1 :]


@pytest.mark.parametrize("name", COMBINATIONS)
def test_prompt_and_answer_equal_the_layers_called_by_hand(model, eager, name):
    prompt, steps = make_prompt(1), steps_of(model, COMBINATIONS[name])
    output = generate(model, [prompt], steps, output_logits=True, return_dict_in_generate=True)
    reference = Reference(eager, prompt, output.sequences[0])
    expected = reference.logits(COMBINATIONS[name], len(output.sequences[0]))[:-1]
    torch.testing.assert_close(torch.cat(output.logits), expected, atol=2e-4, rtol=0)
    [plans] = steps.last.plans
    assert [plan.anchor.tolist() for [plan] in plans] == [plan.anchor.tolist() for plan in reference.plans]
    counts = [len(plan) for plan in reference.plans]
    assert counts[-1] < counts[0] < NUM_VISUAL  # every combination shortens twice
    assert [int(kept.sum()) for kept in steps.last.kept] == [len(prompt) - NUM_VISUAL + count for count in counts]


def check_padded_batch(model, name, **options):
    prompts = [make_prompt(seed, after) for seed, after in ((4, 7), (5, 2), (6, 11))]
    steps = steps_of(model, COMBINATIONS[name])
    batch = generate(model, prompts, steps, **options)
    kept = [plans[-1][0].anchor.tolist() for plans in steps.last.plans]
    assert len({str(one) for one in kept}) == 3 or steps.steps[-1].compressor == AVERAGE
    assert batch.tolist() == [generate(model, [prompt], steps, **options)[0].tolist() for prompt in prompts]


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_padded_batch_equals_single_prompts(model, name):
    check_padded_batch(model, name)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_beams_of_a_padded_batch_equal_those_of_single_prompts(eager, name):
    check_padded_batch(eager, name, num_beams=2)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_prompts_padded_on_the_right(model, name):
    prompts, steps = [make_prompt(4, 7), make_prompt(5, 2)], steps_of(model, COMBINATIONS[name])
    embeds = torch.stack([prompts[0], torch.cat([prompts[1], torch.ones(5, WIDTH)])])
    mask = torch.tensor([[1] * 60, [1] * 55 + [0] * 5])
    with torch.inference_mode():
        with steps.prompts([[span()]] * 2):
            both = model(inputs_embeds=embeds, attention_mask=mask).logits
        for row, prompt in enumerate(prompts):
            with steps.prompts([[span()]]):
                alone = model(inputs_embeds=prompt[None]).logits[0]
            torch.testing.assert_close(both[row, -len(alone) :], alone, atol=2e-4, rtol=0)


def test_two_videos_a_prompt_without_one_and_newlines(model):
    """A newline goes when the second step takes the last token of its row, not before."""
    rows = torch.arange(12) * 5 + BEFORE
    tokens = (rows[:, None] + torch.arange(4)).flatten()
    prompt = torch.randn(BEFORE + 60 + 48 + 6, WIDTH, generator=torch.Generator().manual_seed(2))
    prompt[:, :2] = 1
    prompt[tokens[20:24], 0] = -1  # row 5 is gone after the first step
    prompt[tokens[24:26], 0] = -1
    prompt[tokens[26:28], 1] = -1  # row 6 after the second
    steps = steps_of(model, (Step(Positive(), 0), Step(Positive(1), 0)))
    both = [VisualSpan(tokens, SHAPE, rows + 4), span(BEFORE + 60)]
    text = make_prompt(9)[:20]
    batch = generate(model, [prompt, text], steps, [both, []])
    assert steps.last.num_newlines == [[11, 10], [0, 0]]
    assert [[len(plan) for plan in of_step] for of_step in steps.last.plans[0]] == [[42, 48], [40, 48]]
    assert steps.last.plans[1] == [[], []]
    gone = torch.cat([tokens[20:28], rows[5:7] + 4]).tolist()
    left = torch.tensor([place for place in range(len(prompt)) if place not in gone])
    with torch.inference_mode():
        for row, plain in enumerate((prompt[left], text)):
            alone = GenerationMixin.generate(model, inputs_embeds=plain[None], max_new_tokens=NUM_NEW, do_sample=False)
            assert batch[row].tolist() == alone[0].tolist()


@pytest.mark.parametrize("name", ["gap, two at a layer", "mergers"])
def test_a_shared_prefix_equals_whole_prompts(model, name):
    steps = {"mergers": (Step(AVERAGE, 1), Step(AVERAGE, 3, "survive"))} | COMBINATIONS
    steps = steps_of(model, steps[name])
    prefix, suffixes = make_prompt(1, after=0), [make_prompt(seed)[:count] for seed, count in ((2, 7), (3, 1), (4, 12))]
    session = VideoSession(model, prefix, steps, [span()])
    expected = [len(prefix)] * NUM_LAYERS
    for layer, kept in zip(steps.layers, session.compressed.kept, strict=True):
        expected[layer:] = [int(kept.sum())] * (NUM_LAYERS - layer)
    assert session.layer_lengths() == expected
    assert expected[-1] < expected[1] < len(prefix)
    options = {"do_sample": False, "max_new_tokens": NUM_NEW}
    whole = [generate(model, [torch.cat([prefix, suffix])], steps, **options)[0].tolist() for suffix in suffixes]
    assert session.generate(suffixes, **options).tolist() == whole
    assert [session.generate([suffix], **options)[0].tolist() for suffix in suffixes] == whole
    for suffix in suffixes:
        with steps.prompts([[span()]]), torch.inference_mode():
            logits = model(inputs_embeds=torch.cat([prefix, suffix])[None]).logits[0, -len(suffix) :]
        torch.testing.assert_close(session.logits(suffix), logits, atol=2e-4, rtol=0)


def test_steps_that_look_at_the_question_share_no_prefix(model):
    steps = steps_of(model, (Step(AVERAGE, 0), *FastV().steps()))
    assert steps.query_aware
    with pytest.raises(ValueError, match=r"FastV\(.*\) looks at the question, so questions cannot share a prefix"):
        VideoSession(model, make_prompt(1), steps, [span()])
    assert not steps_of(model, (Step(AVERAGE, 0),)).query_aware


@pytest.mark.parametrize("rows", ["last", "question"])
@pytest.mark.parametrize(("layer", "place"), [(0, 0), (0, 1), (1, 3), (2, 2)])
@torch.inference_mode()
def test_evidence_equals_eager_attention_in_padded_batches(model, eager, rows, layer, place):
    prompts, method = [make_prompt(4, 7), make_prompt(5, 2)], Noting(QueryAttention(layer, rows))
    steps = steps_of(model, [Step(method, place)])
    for embeds, mask in (
        (torch.cat([torch.ones(5, WIDTH), prompts[1]]), [0] * 5 + [1] * 55),
        (torch.cat([prompts[1], torch.ones(5, WIDTH)]), [1] * 55 + [0] * 5),
    ):
        method.notes.clear()
        with steps.prompts([[span()]] * 2, num_answer=[1, 0]):
            model(inputs_embeds=torch.stack([prompts[0], embeds]), attention_mask=torch.tensor([[1] * 60, mask]))
        for noted, prompt in zip(method.notes, (prompts[0][:-1], prompts[1]), strict=True):
            weights = eager.model(inputs_embeds=prompt[None], output_attentions=True).attentions[layer][0]
            of_rows = weights[:, -1:] if rows == "last" else weights[:, BEFORE + NUM_VISUAL :]
            expected = of_rows[..., BEFORE : BEFORE + NUM_VISUAL].flatten(0, 1).mean(dim=0)
            torch.testing.assert_close(noted, expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_evidence_is_carried_through_steps_between(model):
    received, early, late = torch.rand(NUM_VISUAL), Noting(QueryAttention(0)), Noting(QueryAttention(0))
    tower = Noting(AttentionReceived())
    steps = steps_of(model, [Step(early, 1), Step(AVERAGE, 1), Step(late, 3), Step(tower, 3)])
    with steps.prompts([[span(evidence={AttentionReceived(): received})]]):
        model(inputs_embeds=make_prompt(1)[None])
    pooling = steps.last.plans[0][1][0]
    torch.testing.assert_close(late.notes[0], pooling.mean(early.notes[0][:, None])[:, 0])
    torch.testing.assert_close(tower.notes[0], pooling.mean(received[:, None])[:, 0])


@torch.inference_mode()
def test_ragged_input(model):
    cell = torch.arange(0, NUM_VISUAL, 2)
    ragged = VisualSpan(BEFORE + torch.arange(24), SHAPE, NONE, cell)
    prompt = torch.cat([make_prompt(1)[:BEFORE], make_prompt(1)[BEFORE : BEFORE + 24], make_prompt(1)[-7:]])
    noting = Noting(QueryAttention(0))
    steps = steps_of(model, [Step(Positive(), 0), Step(noting, 1), *FastV(tokens_per_frame=2, scope="frame").steps()])
    with steps.prompts([[ragged]]):
        model(inputs_embeds=prompt[None])
    first, _, last = (plan for [plan] in steps.last.plans[0])
    assert (first.num_sources, len(last)) == (24, 6)
    kept = cell[first.anchor][last.anchor]
    assert torch.bincount(kept // 16).tolist() == [2, 2, 2]
    with (
        pytest.raises(ValueError, match=r"tokens do not fill a lattice of \(3, 4, 4\); methods .* on them: .*fastv"),
        steps_of(model, [Step(Positive(), 1), Step(AVERAGE, 2)]).prompts([[span()]]),
    ):
        model(inputs_embeds=make_prompt(1)[None])


@dataclass(frozen=True)
class OnOnePlace(Compressor):
    """Leaves two tokens on the place of the first."""

    def plan(self, tokens, evidence):
        return Plan.keep(torch.tensor([0, 0]), len(tokens))


@torch.inference_mode()
def test_what_cannot_be_is_said(model):
    with pytest.raises(ValueError, match="at least one step"):
        steps_of(model, [])
    with pytest.raises(ValueError, match=r"in the order of their layers, got layers \[2, 1\]"):
        steps_of(model, [Step(AVERAGE, 2), Step(AVERAGE, 1)])
    with pytest.raises(ValueError, match="acts at place 'tokens', not inside the language model"):
        steps_of(model, [Step(AVERAGE, "tokens")])
    with pytest.raises(ValueError, match=r"acts at layer 1, before QueryAttention\(layer=2, .* can be computed"):
        steps_of(model, [Step(Noting(QueryAttention(2)), 1)])
    missing = Noting(Question())
    for method, message in ((OnOnePlace(), "puts 1 tokens at the places of others"), (missing, "needs evidence: Qu")):
        steps = steps_of(model, [Step(method, 1)])
        with pytest.raises(ValueError, match=message), steps.prompts([[span()]]):
            model(inputs_embeds=make_prompt(1)[None])
        assert not any(module._forward_pre_hooks for module in (model.model, *model.model.layers))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.inference_mode()
def test_flash_attention_decides_like_eager(make_decoder):
    pytest.importorskip("flash_attn")
    notes = []
    for implementation in ("flash_attention_2", "eager"):
        model = make_decoder(num_layers=2, attn_implementation=implementation).cuda().half()
        method = Noting(QueryAttention(0))
        with steps_of(model, [Step(method, 1), *FastV(layer=1).steps()]).prompts([[span()]]):
            model(inputs_embeds=make_prompt(1)[None].cuda().half())
        notes.append(method.notes[0])
    torch.testing.assert_close(*notes, atol=1e-5, rtol=0)
