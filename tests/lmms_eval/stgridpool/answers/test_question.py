"""A compressor that looks at the question compresses once per question; the encoding is shared all the same."""

from dataclasses import dataclass

import pytest
from lmms_eval.api.instance import unwrap_generation_output

from llava.video_model import LlavaVideoModel
from stgridpool import COMPRESSORS, Scorer
from stgridpool.evidence import Question

WORDS = ("red", "blue", "red", "fast", "blue")


@dataclass(frozen=True)
class Asked(Scorer):
    """Keeps the tokens that are most like the mean of the question's embeddings."""

    @property
    def needs(self):
        return frozenset({Question("decoder")})

    def score(self, tokens, evidence):
        return tokens.features.float() @ evidence[Question("decoder")].float().mean(dim=0)


@pytest.fixture
def seen(monkeypatch):
    """The plan of every compression, in order."""
    plans, plain = [], LlavaVideoModel.compress

    def compress(self, features, evidence, timer):
        video = plain(self, features, evidence, timer)
        plans.append(video.plan)
        return video

    monkeypatch.setattr(LlavaVideoModel, "compress", compress)
    monkeypatch.setitem(COMPRESSORS, "asked", Asked)
    return plans


def kept(plan):
    return plan.flatten().rows.sources.tolist()


@pytest.mark.parametrize("share_prefix", [True, False])
def test_every_question_gets_the_tokens_chosen_for_it(make_model, ask, seen, monkeypatch, share_prefix):
    arguments = {"compressor": "asked", "compressor_args": {"retention": 0.2, "scope": "video"}}
    documents = [{"visuals": ["v2.mp4"], "context": word, "gen_kwargs": {"max_new_tokens": 6}} for word in WORDS]
    alone = []
    for document in documents[:4]:
        [result] = ask(make_model(**arguments, share_prefix=share_prefix), "generate_until", [document])
        alone.append((kept(seen.pop()), unwrap_generation_output(result)[0]))
    plans, texts = zip(*alone, strict=True)
    assert plans[0] == plans[2]
    assert len({str(plan) for plan in plans}) == 3  # the questions must want different tokens

    model, encoded, encode = make_model(**arguments, share_prefix=share_prefix), [], LlavaVideoModel.encode
    monkeypatch.setattr(LlavaVideoModel, "encode", lambda *given: encoded.append(1) or encode(*given))
    results = ask(model, "generate_until", documents)
    assert [unwrap_generation_output(result)[0] for result in results] == [*texts, texts[1]]
    assert [kept(plan) for plan in seen] == [plans[0], plans[1], plans[2], plans[3], plans[1]]
    assert len(encoded) == 1
    assert model._setup["shares_prefix"] is False


INSIDE = {
    "fastv": ("fastv", {"layer": 1, "retention": 0.2}),
    "pyramid": ("pyramid_drop", {"layers": [0, 1], "keep": [0.5, 0.2]}),
    "three": ("bilinear+visionzip+fastv", {"visionzip": {"retention": 0.5}, "fastv": {"layer": 1, "tokens": 20}}),
}


@pytest.mark.parametrize("share_prefix", [True, False])
@pytest.mark.parametrize("setting", INSIDE)
def test_inside_the_language_model_every_question_chooses_for_itself(make_model, ask, setting, share_prefix):
    name, options = INSIDE[setting]
    arguments = {"compressor": name, "compressor_args": options, "share_prefix": share_prefix}
    documents = [{"visuals": ["v2.mp4"], "context": word, "gen_kwargs": {"max_new_tokens": 6}} for word in WORDS]

    def answered(model, documents):
        texts = [unwrap_generation_output(result)[0] for result in ask(model, "generate_until", documents)]
        inside = model.model.inside
        return texts, [[plan.anchor.tolist() for plan in step] for step in inside.last.plans[0]]

    alone = [answered(make_model(**arguments), [document]) for document in documents[:4]]
    assert len({str(kept) for _, kept in alone}) > 1  # the questions must want different tokens
    assert alone[0] == alone[2]
    model = make_model(**arguments)
    together = answered(model, documents)
    assert together[0] == [alone[index][0][0] for index in (0, 1, 2, 3, 1)]
    assert together[1] == alone[1][1]
    assert model._setup["shares_prefix"] is False


def test_counts_of_a_pyramid_are_recorded_per_layer(make_model, ask):
    model = make_model(
        compressor="pyramid_drop",
        compressor_args={"layers": [0, 1], "keep": [0.5, 0.2]},
        mm_newline_position="no_token",
    )
    [result] = ask(
        model, "generate_until", [{"visuals": ["v2.mp4"], "gen_kwargs": {"max_new_tokens": 3, "num_beams": 2}}]
    )
    facts = unwrap_generation_output(result)[1].to_dict()
    full = facts["full_tokens"]
    num_layers = model.model.language_model.config.num_hidden_layers
    first, later = full // 2, full // 5
    assert facts["kept_tokens"]["entering_llm"] == first
    assert facts["kept_tokens"]["last_layer"] == facts["kept_tokens"]["last_layer_with_newlines"] == later
    assert facts["kept_tokens"]["layer_average"] == (first + (num_layers - 1) * later) / num_layers
    assert facts["visual_tokens"] == full


def test_the_answer_that_is_scored_does_not_decide_what_is_kept(make_model, ask):
    model = make_model(compressor="fastv", compressor_args={"layer": 1, "retention": 0.2})
    kept = []
    for continuation in ("red", "a thing that is rather blue"):
        ask(model, "loglikelihood", [{"visuals": ["v2.mp4"], "context": "red", "continuation": continuation}])
        kept.append(model.model.inside.last.plans[0][0][0].anchor.tolist())
    assert kept[0] == kept[1]
    ask(model, "generate_until", [{"visuals": ["v2.mp4"], "context": "red"}])
    assert model.model.inside.last.plans[0][0][0].anchor.tolist() == kept[0]
