"""The cheapest setting that loses little is recommended, in a sentence that says why."""

import pytest

from lmms_eval_stgridpool.comparison.recommendation import default_tolerance, recommend
from lmms_eval_stgridpool.comparison.settings import Mean, Setting


def setting(run, loss, seconds, cache, interval=0.01, **more):
    means = [Mean(value, interval, 300, 100) for value in (1 - loss, loss, seconds, cache)]
    known = {"accuracy": means[0], "agreement": None} | more
    return Setting(run, f"compressor={run}", loss=means[1], seconds=means[2], cache_mb=means[3], **known)


OWN = setting("uncompressed", 0.0, 2.0, 10.0)
SETTINGS = [OWN, setting("slow", 0.0, 3.0, 1.0), setting("good", 0.01, 1.0, 5.0), setting("bad", 0.2, 0.5, 2.0)]


def test_the_fastest_setting_within_the_tolerance():
    found = recommend(SETTINGS, 0.03, "seconds")
    assert found.run == "good"
    assert found.sentence == (
        "Recommended: good (compressor=good): of 2 that lose at most 3 points of accuracy it needs the least time: "
        "50% of the uncompressed model's seconds and 50% of its cache; it loses 1.0 ± 1.0 points on 300 questions."
    )


def test_the_smallest_cache_if_asked_for():
    assert recommend(SETTINGS, 0.03, "cache").run == "slow"


def test_an_interval_beyond_the_tolerance_is_said():
    sentence = recommend([OWN, setting("good", 0.01, 1.0, 5.0, interval=0.05)], 0.02, "seconds").sentence
    assert sentence.endswith("Its loss may be more than 2 points: ask about more videos to be sure.")
    alone = recommend([OWN, setting("good", 0.0, 1.0, 5.0, interval=None)], 0.02, "seconds").sentence
    assert "it loses 0.0 points on 300 questions. Its loss may be more than 2 points" in alone


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ([SETTINGS[3]], "every setting loses more than 2 points of accuracy; bad comes nearest, with 20.0 ± 1.0"),
        ([SETTINGS[1]], "no setting that loses at most 2 points of accuracy needs less"),
        ([], "there is nothing to compare it with"),
    ],
)
def test_no_compression_where_nothing_is_better(others, why):
    found = recommend([OWN, *others], 0.02, "seconds")
    assert (found.run, found.sentence) == ("uncompressed", f"Recommended: no compression: {why}.")


def test_agreement_may_be_lower_than_accuracy():
    assert default_tolerance(SETTINGS) == 0.02
    alone = setting("uncompressed", 0.0, 2.0, 10.0, accuracy=None, agreement=Mean(1.0, 0.0, 3, 1))
    assert default_tolerance([alone]) == 0.1
    assert "10 points of agreement" in recommend([alone, setting("bad", 0.2, 1, 1)], 0.1, "seconds").sentence
