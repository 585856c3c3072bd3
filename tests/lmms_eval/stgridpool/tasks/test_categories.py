"""Scores by category are lmms-eval's, and only categories with questions are logged."""

import pytest

from lmms_eval_stgridpool.tasks import categories


@pytest.fixture
def own_lines(logged):
    """Function that returns the messages that were logged."""
    return lambda: [str(message).rpartition(" - ")[2].strip() for message in logged]


def test_videomme(own_lines):
    kinds = {"category": "Knowledge", "sub_category": "Astronomy", "task_category": "Counting Problem"}
    rows = [("short", "A"), ("short", "B"), ("long", "B"), ("long", "B")]
    results = [kinds | {"duration": duration, "pred_answer": answer, "answer": "B"} for duration, answer in rows]
    assert categories.videomme_aggregate_results(results) == 75
    assert own_lines() == [
        "accuracy by duration: long 100.0 %, short 50.0 %",
        "accuracy by category: Knowledge 75.0 %",
        "accuracy by sub_category: Astronomy 75.0 %",
        "accuracy by task_category: Counting Problem 75.0 %",
    ]


def test_mlvu_is_the_mean_of_seven_kinds(own_lines):
    rows = [("ego", "A"), ("ego", "B"), ("count", "B")]
    results = [{"task_type": kind, "pred_answer": answer, "answer": "B"} for kind, answer in rows]
    assert categories.mlvu_aggregate_results(results) == pytest.approx((50 + 100) / 7)
    assert own_lines() == ["accuracy by task_type: count 100.0 %, ego 50.0 %"]


def test_the_log_of_lmms_eval_is_on_again_after_an_error():
    from lmms_eval.tasks.mlvu import utils
    from loguru import logger

    with pytest.raises(KeyError, match="pred_answer"):
        categories.mlvu_aggregate_results([{"task_type": "ego"}])
    messages = []
    handler = logger.add(messages.append)
    utils.mlvu_aggregate_results_dev([])
    logger.remove(handler)
    assert messages
