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
