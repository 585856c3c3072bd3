"""An answer that comes from NaN or infinity does not count: it fails with the stage and the dtype, and is not kept."""

import math

import pytest
import torch
from lmms_eval.api.instance import unwrap_generation_output
from loguru import logger
from PIL import Image

from lmms_eval_stgridpool.run.unanswered import NOT_FINITE

REPAIR = "use torch_dtype=bfloat16 or float32; if that does not help, the weights are damaged"
CHOICES = ["red", "a green thing"]
WORD = "~"
"""Its token stands in no other prompt of these tests."""


@pytest.fixture
def poisoned(make_model, tmp_path):
    """Function that builds the model, with a journal, and spoils one of its weights in memory."""

    def poisoned(name, value=math.nan, **arguments):
        model = make_model(**{"resume_dir": str(tmp_path / "journal")} | arguments)
        with torch.no_grad():
            model.model.language_model.get_parameter(name).view(-1)[3] = value
        return model

    return poisoned


@pytest.fixture
def kept(tmp_path):
    """Function that counts the answers in the journal."""
    return lambda: sum(len(file.read_bytes().splitlines()) for file in (tmp_path / "journal").rglob("*.jsonl"))


def outcome(results):
    """Answers, and why there are none."""
    pairs = [unwrap_generation_output(result) for result in results]
    return [answer for answer, _ in pairs], [facts.failure for _, facts in pairs]


def questions(count=3, **settings):
    gen_kwargs = {"max_new_tokens": 4, **settings}
    return [{"visuals": ["v0.mp4"], "context": f"Question {n}?", "gen_kwargs": gen_kwargs} for n in range(count)]


STAGES = {
    "model.vision_tower.vision_tower.embeddings.patch_embedding.bias": "vision tower",
    "model.mm_projector.0.weight": "projector",
    "model.image_newline": "compressor",
    "model.layers.1.mlp.down_proj.weight": "language model",
    "lm_head.weight": "language model",
}


@pytest.mark.parametrize(("weight", "stage"), STAGES.items())
@pytest.mark.parametrize("share_prefix", [True, False])
def test_a_batch_of_questions(poisoned, ask, kept, weight, stage, share_prefix):
    model = poisoned(weight, share_prefix=share_prefix)
    answers, failures = outcome(ask(model, "generate_until", questions()))
    assert answers == [""] * 3
    assert failures == [f"NaN or infinity in the {stage} with torch_dtype=float32: the weights are damaged"] * 3
    assert kept() == 0
    assert model._sums.failures == {NOT_FINITE: 3}
    assert model._sums.failed_requests == 3
    assert model._sums.retention.questions == 0
    assert model._sums.totals["output_tokens"] == 0


@pytest.mark.parametrize("weight", ["model.mm_projector.0.weight", "model.layers.1.mlp.down_proj.weight"])
@pytest.mark.parametrize("settings", [{"num_beams": 3}, {"do_sample": True, "temperature": 0.7}], ids=str)
def test_beams_and_samples(poisoned, ask, kept, weight, settings):
    """Sampling from NaN is an error of torch's, on a GPU one that nothing survives."""
    model = poisoned(weight, share_prefix="projector" in weight)
    answers, failures = outcome(ask(model, "generate_until", questions(2, **settings)))
    assert answers == [""] * 2
    assert all(STAGES[weight] in failure for failure in failures)
    assert kept() == 0


@pytest.mark.parametrize(("weight", "stage"), STAGES.items())
def test_losses(poisoned, ask, kept, weight, stage):
    model = poisoned(weight, share_prefix=weight != "lm_head.weight")
    documents = [{"visuals": ["v0.mp4"], "continuation": text} for text in CHOICES]
    answers, failures = outcome(ask(model, "loglikelihood", documents))
    assert answers == [(math.inf, False)] * 2
    assert all(f"in the {stage} with torch_dtype=float32" in failure for failure in failures)
    assert kept() == 0


def test_rounds(poisoned, ask, kept):
    def doc_to_text(document, **notes):
        raise AssertionError("a lost answer makes no next question")

    model = poisoned("lm_head.weight")
    document = {"visuals": ["v0.mp4"], "doc_to_text": doc_to_text, "gen_kwargs": {"max_new_tokens": 3}}
    answers, failures = outcome(ask(model, "generate_until_multi_round", [document]))
    assert answers == [[""]]
    assert "language model" in failures[0]
    assert kept() == 0


@pytest.mark.parametrize(
    ("weight", "stage"),
    [("model.mm_projector.0.weight", "vision tower or projector"), ("lm_head.weight", "language model")],
)
def test_pictures(poisoned, ask, kept, weight, stage):
    model = poisoned(weight)
    _, failures = outcome(ask(model, "generate_until", [{"visuals": [Image.new("RGB", (40, 30), "red")]}]))
    assert f"in the {stage} with" in failures[0]
    assert kept() == 0


@pytest.mark.parametrize("kind", ["generate_until", "loglikelihood"])
@pytest.mark.parametrize(("part", "stage"), [("mm_projector", "projector"), ("lm_head", "language model")])
def test_numbers_that_overflow_float16(make_model, ask, part, stage, kind):
    """Weights that float16 holds, and products that it does not: only with it do the questions fail."""
    documents = [document | {"continuation": "red"} for document in questions()]
    for dtype in ("float16", "bfloat16"):
        model = make_model(torch_dtype=dtype)
        with torch.no_grad():
            for name, weight in model.model.language_model.named_parameters():
                if part in name:
                    weight.copy_(weight / weight.abs().max() * 30_000)
                assert weight.isfinite().all()
        answers, failures = outcome(ask(model, kind, documents))
        if dtype == "float16":
            assert answers == [{"generate_until": "", "loglikelihood": (math.inf, False)}[kind]] * 3
            assert failures == [f"NaN or infinity in the {stage} with torch_dtype=float16: {REPAIR}"] * 3
        else:
            assert failures == [None] * 3


@pytest.mark.parametrize("share_prefix", [True, False])
def test_only_the_question_concerned_fails(make_model, ask, kept, tmp_path, share_prefix):
    model = make_model(resume_dir=str(tmp_path / "journal"), share_prefix=share_prefix)
    documents = questions(4)
    expected, _ = outcome(ask(make_model(), "generate_until", documents))
    documents[2]["context"] += WORD
    own = model.model.tokenizer(WORD).input_ids[-1]
    with torch.no_grad():
        model.model.language_model.get_input_embeddings().weight[own] = math.nan
    logged = []
    handler = logger.add(logged.append, level="ERROR")
    answers, failures = outcome(ask(model, "generate_until", documents))
    logger.remove(handler)
    assert [failure is not None for failure in failures] == [False, False, True, False]
    assert answers == [*expected[:2], "", expected[3]]
    assert kept() == 3
    assert len(logged) == 1
    assert "task task, document 2 is not answered: NaN or infinity in the language model" in logged[0]


def test_only_the_token_after_which_it_happens_ends_an_answer(make_model, ask):
    """NaN in a token's embedding spoils the answer once that token was generated, whatever came before it."""
    model = make_model()
    [document] = questions(1, max_new_tokens=6)
    ids = []
    handle = model.model.language_model.register_forward_hook(lambda *_: ids.append(_[2].logits[0, -1].argmax().item()))
    ask(model, "generate_until", [document])
    handle.remove()
    with torch.no_grad():
        model.model.language_model.get_input_embeddings().weight[ids[1]] = math.nan
    short, long = dict(document, gen_kwargs={"max_new_tokens": 1}), document
    _, failures = outcome(ask(model, "generate_until", [short, long]))
    assert failures[0] is None
    assert "language model" in failures[1]


@pytest.mark.parametrize("compressor", ["none", "average", "bilinear", "max", "nsp", "ptg", "sttm"])
def test_every_compressor(poisoned, ask, compressor):
    options = '{"layer":1}' if compressor == "sttm" else "{}"
    model = poisoned("model.mm_projector.0.weight", compressor=compressor, compressor_args=options, resume_dir=None)
    _, failures = outcome(ask(model, "generate_until", questions(2)))
    assert failures == ["NaN or infinity in the projector with torch_dtype=float32: the weights are damaged"] * 2


@pytest.mark.parametrize("options", ['{"layer":1}', '{"layer":1,"retention":0.5}', '{"layer":1,"tokens":20}'])
def test_a_compressor_inside_the_language_model(poisoned, ask, options):
    model = poisoned("model.layers.0.mlp.down_proj.weight", compressor="sttm", compressor_args=options, resume_dir=None)
    _, failures = outcome(ask(model, "generate_until", questions(2)))
    assert all("NaN or infinity in the language model" in failure for failure in failures)
