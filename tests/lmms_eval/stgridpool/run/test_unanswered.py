import pytest

from llava.video import VideoReadError
from lmms_eval_stgridpool.run.unanswered import NOTHING_SHOWN, UnansweredError, Verdict, kind_of


def test_every_unanswered_question_has_a_kind():
    assert kind_of(VideoReadError("v.mp4", "no frames")) == "unreadable video"
    assert kind_of(UnansweredError(NOTHING_SHOWN, "no video")) == "nothing shown"


@pytest.mark.parametrize(
    ("failed", "max_failed", "run_failed"),
    [(24, 0.5, False), (25, 0.5, True), (0, 0, False), (1, 0, True), (47, 1, False), (48, 1, True), (48, 0.5, True)],
)
def test_a_run_fails_above_the_largest_fraction(failed, max_failed, run_failed):
    assert Verdict(48, {"unreadable video": failed}, max_failed).run_failed is run_failed


def test_a_verdict_says_how_many_of_how_many_and_why():
    kinds = {"unreadable video": 6, "nothing shown": 2}
    sentence = "8 of 48 questions could not be answered (nothing shown: 2, unreadable video: 6)"
    assert str(Verdict(48, kinds, 0.5)) == sentence
    assert str(Verdict(48, kinds, 0.1)) == f"the run failed: {sentence}, more than max_failed=0.1 allows"
    assert str(Verdict(8, kinds, 1)) == f"the run failed: {sentence.replace('48', '8')}"


def test_a_run_that_was_asked_nothing_has_not_failed():
    assert not Verdict(0, {}, 0.5).run_failed
