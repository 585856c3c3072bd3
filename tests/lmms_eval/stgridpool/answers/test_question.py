"""A compressor that looks at the question compresses once per question; the encoding is shared all the same."""

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

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


def test_every_question_gets_the_tokens_chosen_for_it(make_model, ask, seen, monkeypatch):
    arguments = {"compressor": "asked", "compressor_args": {"retention": 0.2, "scope": "video"}}
    documents = [{"visuals": ["v2.mp4"], "context": word, "gen_kwargs": {"max_new_tokens": 6}} for word in WORDS]
    alone = []
    for document in documents[:4]:
        [result] = ask(make_model(**arguments), "generate_until", [document])
        alone.append((kept(seen.pop()), unwrap_generation_output(result)[0]))
    plans, texts = zip(*alone, strict=True)
    assert plans[0] == plans[2]
    assert len({str(plan) for plan in plans}) == 3  # the questions must want different tokens

    model, encoded, encode = make_model(**arguments), [], LlavaVideoModel.encode
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


@pytest.mark.parametrize("setting", INSIDE)
def test_inside_the_language_model_every_question_chooses_for_itself(make_model, ask, setting):
    name, options = INSIDE[setting]
    arguments = {"compressor": name, "compressor_args": options}
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


BOTH = {
    "in front": {"compressor": "test_question:Asked", "compressor_args": {"retention": 0.2, "scope": "video"}},
    "inside": {"compressor": "fastv", "compressor_args": {"layer": 1, "retention": 0.2}},
}
ALTERNATELY = [
    ("v2", "red"),
    ("v2", "blue"),
    ("v0", "red"),
    ("v0", "blue"),
    ("v2", "red"),
    ("v0", "blue"),
    ("v2", "blue"),
]


@pytest.fixture(scope="module")
def run_everywhere(start_programs, environments_of_ranks, make_model, checkpoint, clips, tmp_path_factory):
    """Function that answers, in this process or on two, for every run: texts by document, and tokens kept by rank."""

    def in_this_process(runs):
        return [[two_questions.run(make_model(**one["arguments"]), one["documents"]) for one in runs]]

    def on_processes(num_processes, runs):
        output = tmp_path_factory.mktemp("two questions")
        words = (two_questions.__file__, json.dumps({"runs": runs, "output": str(output)}))
        started = start_programs(*[words] * num_processes, environments=environments_of_ranks(num_processes))
        assert set(started.wait().statuses) == {0}, "".join(path.read_text() for path in started.logs[0])
        return [json.loads((output / f"{rank}.json").read_text()) for rank in range(num_processes)]

    def run_everywhere(num_processes, runs):
        common = {"pretrained": str(checkpoint), "max_frames_num": 8, "device": "cpu"}
        runs = [
            {
                "arguments": common | arguments,
                "documents": [(str(clips / f"{video}.mp4"), word) for video, word in documents],
            }
            for arguments, documents in runs
        ]
        ranks = in_this_process(runs) if num_processes == 1 else on_processes(num_processes, runs)
        answers = [
            {int(n): text for own in run for n, text in own["answers"].items()} for run in zip(*ranks, strict=True)
        ]
        kept = [
            [{(Path(video).stem, word): tokens for video, word, tokens in own["kept"]} for own in run]
            for run in zip(*ranks, strict=True)
        ]
        return answers, kept

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)  # compressors are imported from there, as in the program
        two_questions = import_module("two_questions")
        yield run_everywhere


@pytest.fixture(scope="module")
def alone(run_everywhere):
    """By method, video and question: the answer that a model of its own gives, and the tokens that it keeps."""
    asked = [(place, document) for place in BOTH for document in dict.fromkeys(ALTERNATELY)]
    answers, kept = run_everywhere(1, [(BOTH[place], [document]) for place, document in asked])
    found = zip(asked, answers, kept, strict=True)
    return {(place, *document): (texts[0], own[0][document]) for (place, document), texts, own in found}


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_alternate_questions_on_one_and_two_processes_are_answered_as_each_alone(run_everywhere, alone, num_processes):
    for place in BOTH:
        for video in ("v0", "v2"):
            assert alone[place, video, "red"][1] != alone[place, video, "blue"][1]
    settings = [(place, shared) for place in BOTH for shared in (True, False)]
    runs = [({**BOTH[place], "share_prefix": shared}, ALTERNATELY) for place, shared in settings]
    for (place, _), answers, kept in zip(settings, *run_everywhere(num_processes, runs), strict=True):
        assert [answers[number] for number in range(7)] == [alone[place, *one][0] for one in ALTERNATELY]
        assert {one: tokens for own in kept for one, tokens in own.items()} == {
            one: alone[place, *one][1] for one in ALTERNATELY
        }
        videos = [{video for video, _ in own} for own in kept]  # of each rank: a video is on one of them
        assert sorted(video for own in videos for video in own) == ["v0", "v2"]
        assert all(videos)


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
