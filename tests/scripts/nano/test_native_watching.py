"""The miniature in the native format answers from the video as the original one does."""

import pytest

from llava.conversion.convert import convert

FRAMES = 16
CLIPS = 4


@pytest.fixture(scope="module")
def evaluate(nano):
    return nano("evaluate")


@pytest.fixture(scope="module")
def videos(nano, clips_folder):
    return nano("watching").read_set(clips_folder, CLIPS)


@pytest.fixture(scope="module")
def native(evaluate, shipped, tmp_path_factory):
    folder = tmp_path_factory.mktemp("native") / "checkpoint"
    convert(str(shipped), folder, verify=False)
    return evaluate.watcher_of(folder, "cpu")


def test_it_sees_as_many_tokens_and_answers_as_the_original_one(nano, evaluate, native, videos, shipped):
    original = nano("watching").Watcher(shipped)
    rows = [evaluate.watch_all(one, videos, one.own_pooling, FRAMES) for one in (native, original)]
    assert rows[0]["tokens"] == rows[1]["tokens"]
    assert rows[0]["all"] >= 85  # of 32 answers; guessing gives 25 +- 8
    assert abs(rows[0]["all"] - rows[1]["all"]) <= 10


def test_no_video_is_worth_no_more_than_guessing(evaluate, native, videos):
    answers = [(asked, native.answer(asked.prompts, None)) for asked in videos]
    assert evaluate.score(answers)["all"] <= 60
