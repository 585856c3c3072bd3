"""Settings are measured question by question beside the uncompressed model; all values by hand."""

import pytest

from lmms_eval_stgridpool.comparison.settings import Mean, agreement, measure
from table_samples import sample

ARGS = {"own": "compressor=bilinear", "nsp": "compressor=nsp"}


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [("B", "B.", 1), ("B", "C", 0), ("a red car", "A car", 0.8), ("", "", 1), ("", "x", 0), ("so so", "so", 2 / 3)],
)
def test_agreement_is_the_overlap_of_words(one, other, overlap):
    assert agreement(one, other) == pytest.approx(overlap)


def test_settings_with_known_answers():
    own = [sample(0, "a"), sample(1, "a"), sample(2, "b"), sample(3, "b", answer="A", score=0.0)]
    nsp = [sample(n, "ab"[n // 2], score=score, seconds=0.5, kept=5) for n, score in enumerate((1.0, 0.0, 0.0, 1.0))]
    [first, second] = measure({"own": own, "nsp": nsp}, "own", ARGS, kv_bytes_per_token=1e6)
    assert first.accuracy == Mean(0.75, pytest.approx(1.96 * (2 * (0.5**2 + 0.5**2)) ** 0.5 / 4), 4, 2)
    assert first.agreement is None
    assert (first.seconds.value, first.cache_mb.value) == (1.0, 15)  # 5 of text and 10; decoding is shared
    assert second.loss == Mean(0.25, pytest.approx(1.96 * (2 * (0.5**2 + 0.5**2)) ** 0.5 / 4), 4, 2)
    assert (second.accuracy.value, second.seconds.value, second.cache_mb.value) == (0.5, 0.5, 10)
    assert (first.is_on_front, second.is_on_front, second.model_args) == (True, True, "compressor=nsp")


def test_settings_without_known_answers():
    own = [sample(0, "a", "a red car", metric="answered"), sample(1, "b", "no", metric="answered")]
    nsp = [sample(0, "a", "a car", metric="answered", seconds=2), sample(1, "b", "no", metric="answered", seconds=2)]
    [first, second] = measure({"own": own, "nsp": nsp}, "own", ARGS, 1.0)
    assert first.agreement == Mean(1.0, 0.0, 2, 2)
    assert (first.accuracy, second.accuracy) == (None, None)
    assert second.agreement.value == pytest.approx(0.9)
    assert second.loss.value == pytest.approx(0.1)
    assert (first.is_on_front, second.is_on_front) == (True, False)  # slower, and no better in anything


def test_where_some_answers_are_known_the_others_must_agree():
    own = [sample(0, "a"), sample(1, "b", "yes", metric="not_scored")]
    nsp = [sample(0, "a", "A", 0.0), sample(1, "b", "yes", metric="not_scored")]
    [_, second] = measure({"own": own, "nsp": nsp}, "own", ARGS, 1.0)
    assert (second.accuracy.value, second.agreement.value, second.loss.value) == (0.0, 1.0, 0.5)
    assert (second.accuracy.interval, second.accuracy.count) == (None, 1)


def test_questions_that_one_setting_could_not_answer_count_for_none():
    own = [sample(0, "a"), sample(1, "b", failed=True), sample(2, "c")]
    nsp = [sample(0, "a"), sample(1, "b"), sample(2, "c", "A", 0.0)]
    settings = measure({"own": own, "nsp": nsp}, "own", ARGS, 1.0)
    assert [setting.loss.count for setting in settings] == [2, 2]
    with pytest.raises(ValueError, match="no question could be answered"):
        measure({"own": own[1:2], "nsp": nsp[1:2]}, "own", ARGS, 1.0)


@pytest.mark.parametrize(("interval", "upper"), [(0.1, 0.3), (None, 0.5), (1e-17, 0.5)])
def test_values_without_spread_are_uncertain_by_the_rule_of_three(interval, upper):
    assert Mean(0.2, interval, 20, 10).upper == pytest.approx(upper)
