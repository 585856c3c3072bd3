"""What is read from the call of lmms-eval's evaluator; whole runs are in test_command_line.py."""

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

from lmms_eval_stgridpool.run import evaluation
from lmms_eval_stgridpool.run.evaluation import (
    Evaluation,
    current_evaluation,
    refuse_response_cache,
    results_folder,
    task_index,
    unrecognised,
)

STAND_IN = """
def simple_evaluate(ask, {parameters}):
    return evaluate(ask)

def evaluate(ask):
    return ask()
"""
COMMAND_LINE = Namespace(output_path="out", model="llava_video", model_args="pretrained=../models/llava-video,fps=1")


def simple_evaluate(*parameters, module="lmms_eval.evaluator"):
    """A function that looks like lmms-eval's and asks, two calls deeper, what is going on."""
    names = {"__name__": module}
    exec(STAND_IN.format(parameters=", ".join(parameters)), names)  # noqa: S102
    return names["simple_evaluate"]


KNOWN = ("cli_args", "datetime_str", "evaluation_tracker", "use_cache")


def test_a_run_of_the_command_line_says_where_and_when():
    found = simple_evaluate(*KNOWN)(current_evaluation, COMMAND_LINE, "20260101_00:00:00", object(), "cache")
    assert found == Evaluation(COMMAND_LINE, "20260101_00-00-00", Path("out/models__llava-video"), "cache")


@pytest.mark.parametrize(("command_line", "tracker"), [(None, None), (COMMAND_LINE, None), (None, object())])
def test_another_programs_run_is_that_programs_affair(command_line, tracker):
    found = simple_evaluate(*KNOWN)(current_evaluation, command_line, "20260101_000000", tracker, None)
    assert found == Evaluation(None, "20260101_000000", None, None)


def test_outside_of_a_run_nothing_is_read():
    assert current_evaluation() is None
    other = simple_evaluate(*KNOWN, module="another.evaluator")
    assert other(current_evaluation, COMMAND_LINE, "20260101_000000", object(), "cache") is None
    renamed = simple_evaluate("cli_args", "time", "evaluation_tracker", "use_cache")
    assert renamed(current_evaluation, COMMAND_LINE, "20260101_000000", object(), "cache") is None


def test_the_tasks_of_a_run_are_those_of_its_index():
    index = {"quiz": {"yaml_path": "quiz.yaml"}}
    assert simple_evaluate("task_manager")(task_index, SimpleNamespace(task_index=index)) == index
    assert simple_evaluate("task_manager")(task_index, None) == {}
    assert task_index() == {}


def test_a_run_may_write_nothing():
    assert results_folder(Namespace(output_path=None)) is None


def test_the_response_cache_is_refused_unless_it_is_allowed():
    cached = Evaluation(None, "20260101_000000", None, "answers")
    with pytest.raises(ValueError, match=r"--use_cache answers .* resume_dir=FOLDER .* allow_use_cache=True"):
        refuse_response_cache(cached, allowed=False)
    refuse_response_cache(cached, allowed=True)
    refuse_response_cache(Evaluation(None, "20260101_000000", None, None), allowed=False)
    refuse_response_cache(None, allowed=False)


def test_the_installed_lmms_eval_is_recognised(logged):
    assert unrecognised() == []
    assert not logged


def test_another_lmms_eval_is_noticed(logged, monkeypatch):
    monkeypatch.setattr(evaluation, "PARAMETERS", ("cli_args", "started_at"))
    assert unrecognised() == ["lmms_eval.evaluator.simple_evaluate(started_at=)"]
    assert " lacks lmms_eval.evaluator.simple_evaluate(started_at=)" in logged[0]
