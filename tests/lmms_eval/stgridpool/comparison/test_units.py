"""Whether a score is in percent or a share of 1."""

import pytest

from lmms_eval_stgridpool.comparison.units import unit_of


@pytest.mark.parametrize(
    ("metric", "score", "scores", "unit"),
    [
        ("m", 62.5, [1.0] * 5 + [0.0] * 3, 100),
        ("m", 0.625, [1.0] * 5 + [0.0] * 3, 1),
        ("m", 0.8, [1.0] * 8 + [0.0] * 992, 100),  # 8 of 1,000 questions are right: 0.8 %
        ("m", 0.008, [1.0] * 8 + [0.0] * 992, 1),
        ("m", 0.5, [1.0] * 10 + [0.0] * 990, 100),  # the mean over kinds of questions, in %
        ("m", 1.0, [1.0, 1.0], 1),
        ("m", 0.0, [0.0, 0.0], None),
        ("m", 0.8, [None, None], None),
        ("mlvu_percetion_score", 0.8, [None, None], 100),
        ("lvb_acc", 0.8, [None, None], 1),
    ],
)
def test_the_scores_of_the_questions_tell_the_unit(metric, score, scores, unit):
    samples = [{metric: {} if one is None else {"score": one}} for one in scores]
    assert unit_of(metric, score, samples) == unit


def test_a_metric_may_keep_a_number_alone_or_score_no_question():
    assert unit_of("m", 50.0, [{"m": True}, {"m": False}]) == 100
    assert unit_of("m", 0.5, [{"m": True}, {"m": False}, {}]) == 1
    assert unit_of("m", 0.5, [{}]) is None
