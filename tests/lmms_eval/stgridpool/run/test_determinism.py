"""Runs that are repeated bit for bit."""

import shutil

import numpy as np
import pytest
import torch
from lmms_eval.api.instance import unwrap_generation_output

from lmms_eval_stgridpool.run import determinism


@pytest.mark.usefixtures("_settings_of_torch")
def test_two_runs_agree_bit_for_bit_also_where_answers_are_sampled(make_model, ask, checkpoint, tmp_path):
    sampled = {"do_sample": True, "temperature": 5.0, "max_new_tokens": 8}
    documents = [{"visuals": [name], "gen_kwargs": sampled} for name in ("v0.mp4", "v1.mp4", "v0.mp4", "v2.mp4")]
    losses = [{"visuals": ["v1.mp4"], "continuation": "red"}]

    def run(documents, **arguments):
        model = make_model(deterministic=True, **arguments)
        assert torch.are_deterministic_algorithms_enabled()
        results = [ask(model, "generate_until", documents), ask(model, "loglikelihood", losses)]
        return [unwrap_generation_output(result)[0] for part in results for result in part]

    first = run(documents)
    torch.manual_seed(5)
    again = shutil.copytree(checkpoint, tmp_path / checkpoint.name)  # `make_model` loads this one from its files
    assert run(documents, pretrained=str(again)) == first
    assert first[0] != first[2]  # the same question about the same video, asked as another document
    torch.use_deterministic_algorithms(False)
    plain = make_model()
    draws = [[unwrap_generation_output(one)[0] for one in ask(plain, "generate_until", documents)] for _ in range(2)]
    assert draws[0] != draws[1]


def test_seeds_reach_every_generator():
    def draw(text):
        determinism.seed_from(text)
        return torch.rand(3).tolist(), np.random.rand(3).tolist()  # noqa: NPY002 - the generator that is seeded

    assert draw("one") == draw("one")
    assert draw("one")[0] != draw("other")[0]
    assert draw("one")[1] != draw("other")[1]


@pytest.mark.usefixtures("_settings_of_torch")
def test_repeats_of_a_question_are_drawn_anew(make_model, ask):
    document = {"visuals": ["v0.mp4"], "gen_kwargs": {"do_sample": True, "temperature": 5.0, "max_new_tokens": 8}}
    model = make_model(deterministic=True)
    first, second = (unwrap_generation_output(ask(model, "generate_until", [document])[0])[0] for _ in range(2))
    assert first != second
