"""Compressors inside the language model, through the plug-in: answers, counts and retention."""

import json
from dataclasses import dataclass, replace

import pytest
from lmms_eval.api.instance import unwrap_generation_output

from stgridpool import Bilinear, Step
from stgridpool.decoder.shortened_prompt import shorten

QUESTIONS = [
    {"visuals": [name], "context": f"Question {index}?", "gen_kwargs": {"max_new_tokens": 3}}
    for index, name in enumerate(["v0.mp4", "v1.mp4", "v0.mp4", "v0.mp4", "v1.mp4"])
]
SETTINGS = {
    "inside": ("sttm", {"layer": 1, "retention": 0.3}),
    "at layer 0": ("sttm", {"layer": 0, "retention": 0.3}),
    "by thresholds": ("sttm", {"layer": 1, "spatial_threshold": 0.5, "temporal_threshold": 0.3}),
    "composed": ("st_gridpool+sttm", {"sttm": {"layer": 1, "retention": 0.5, "positions": "survive"}}),
}


def answers(results):
    return [unwrap_generation_output(result)[0] for result in results]


@pytest.mark.parametrize(
    ("setting", "newlines"),
    [
        ("inside", "no_token"),
        ("inside", "grid"),
        ("at layer 0", "grid"),
        ("by thresholds", "grid"),
        ("composed", "no_token"),
    ],
)
def test_shared_prefixes_give_the_answers_of_whole_prompts(make_model, ask, setting, newlines):
    compressor, options = SETTINGS[setting]
    arguments = {
        "compressor": compressor,
        "compressor_args": json.dumps(options),
        "mm_newline_position": newlines,
    }
    shared, whole = make_model(**arguments), make_model(**arguments, share_prefix=False)
    found = [ask(model, "generate_until", QUESTIONS) for model in (shared, whole)]
    assert answers(found[0]) == answers(found[1])
    facts = [[unwrap_generation_output(result)[1].to_dict() for result in results] for results in found]
    assert [one["kept_tokens"] for one in facts[0]] == [one["kept_tokens"] for one in facts[1]]
    losses = [
        ask(model, "loglikelihood", [{"visuals": ["v2.mp4"], "continuation": text} for text in ("red", "a thing")])
        for model in (shared, whole)
    ]
    for one, other in zip(*map(answers, losses), strict=True):
        assert one[0] == pytest.approx(other[0], abs=1e-4)
    batch = [{"visuals": ["v0.mp4", "v1.mp4"], "context": "Which one?"}]  # two videos in one prompt
    assert answers(ask(shared, "generate_until", batch)) == answers(ask(whole, "generate_until", batch))


def test_every_definition_of_retention_is_recorded(make_model, ask):
    model = make_model(
        compressor="sttm", compressor_args={"layer": 1, "retention": 0.25}, mm_newline_position="no_token"
    )
    results = ask(model, "generate_until", [*QUESTIONS, {"visuals": []}])
    video, text = (unwrap_generation_output(results[index])[1].to_dict() for index in (0, 5))
    frames = video["frames"]
    full, kept = frames * 16, frames * 16 // 4  # 7x7 features, pooled to 4x4
    assert (video["full_tokens"], video["full_newlines"], video["visual_tokens"]) == (full, 0, full)
    layers = model.model.language_model.config.num_hidden_layers
    average = (full + (layers - 1) * kept) / layers
    expected = {"entering_llm": full, "layer_average": average, "last_layer": kept, "kv_read": average}
    expected |= {f"{name}_with_newlines": count for name, count in expected.items()}
    assert video["kept_tokens"] == pytest.approx(expected)
    assert video["retention"]["last_layer"] == pytest.approx(0.25, abs=0.01)
    assert text["retention"] == {}
    model.clean()
    record = model.run_record
    assert record["retention_mean_of_questions"]["last_layer"] == pytest.approx(0.25, abs=0.01)
    assert record["retention_total"]["entering_llm"] == 1
    assert record["compressor"].startswith("STTM(")


def test_a_count_that_is_not_the_planned_one_ends_the_run(make_model, ask, monkeypatch):
    model = make_model(compressor="sttm", compressor_args={"layer": 1, "retention": 0.3})
    with monkeypatch.context() as patches:
        patches.setattr("stgridpool.decoder.prefill.shorten", one_token_less)
        with pytest.raises(SystemExit):
            ask(model, "generate_until", QUESTIONS[:1])
    model.model.compressor = Liar()
    with pytest.raises(SystemExit):
        ask(model, "generate_until", QUESTIONS[1:2])


@dataclass(frozen=True)
class Liar(Bilinear):
    """Says that it leaves seven tokens."""

    def steps(self):
        return (Step(self, 1),)

    def planned_count(self, shape, total=None):
        return 7


def one_token_less(tokens, spans, compressor):
    prompt = shorten(tokens, spans, compressor)
    return replace(prompt, tokens=prompt.tokens[1:], index=prompt.index[1:])


def test_time_to_the_first_token_with_and_without_the_vision_tower(make_model, ask):
    model = make_model(questions_per_batch=2)
    results = ask(model, "generate_until", QUESTIONS)  # three about v0, two about v1
    facts = [unwrap_generation_output(result)[1].to_dict() for result in results]
    assert [one["answered_together"] for one in facts] == [2, 2, 2, 1, 2]
    for one in facts:
        times, seconds = one["first_token_seconds"], one["seconds"]
        assert times["language_model"] == seconds["prefill"] * one["answered_together"]
        encoding = sum(seconds.get(stage, 0) for stage in ("vision", "projector", "compress"))
        assert times["with_vision_tower"] - times["language_model"] == pytest.approx(
            encoding * one["answered_together"]
        )
    assert "vision" not in facts[3]["seconds"]  # a later batch of the same video
    model.clean()
    mean = sum(one["first_token_seconds"]["language_model"] for one in facts) / 5
    assert model.run_record["mean_first_token_seconds"]["language_model"] == pytest.approx(mean)
