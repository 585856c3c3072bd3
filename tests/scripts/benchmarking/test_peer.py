"""The comparison with lmms-eval's own model."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


def test_numbers_of_both_models(benchmarking):
    arguments = Namespace(checkpoint="c", device="cpu", clips=2, frames=16)
    rows = [{"answer": letter} for letter in "ABCD"]
    answers = {"llava_vid": ["A", "B", "C", "A"], "llava_video": ["A", "B", "B", "A"]}
    numbers = benchmarking("peer").summary(arguments, rows, answers, {"llava_vid": 12.0, "llava_video": 3.0})
    assert numbers["seconds_per_question"] == {"llava_vid": 3.0, "llava_video": 0.75}
    assert numbers["ratio"] == 4
    assert numbers["equal_answers_share"] == 0.75
    assert numbers["accuracy"] == {"llava_vid": 0.75, "llava_video": 0.5}


@pytest.mark.slow
def test_both_models_answer_alike(run_python):
    command = ["scripts/benchmark.py", "peer", "--clips", "2", "--device", "cpu", "--json"]
    done = run_python(*command, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-3000:]
    numbers = json.loads(done.stdout)
    assert (numbers["questions"], numbers["equal_answers_share"]) == (16, 1)
    assert min(numbers["accuracy"].values()) > 0.5  # 0.25 by chance
