"""The miniature in the native format answers from the video as the original one does."""

import re

import pytest

from documents import TEXT
from llava.conversion.convert import convert

FRAMES = 16
CLIPS = 4
ONEVISION = "llava-hf/llava-onevision-qwen2-7b-ov-hf"


@pytest.fixture(scope="module")
def evaluate(nano):
    return nano("evaluate")


@pytest.fixture(scope="module")
def videos(nano, clips_folder):
    return nano("watching").read_set(clips_folder, CLIPS)


@pytest.fixture(scope="module")
def folder(shipped, tmp_path_factory):
    folder = tmp_path_factory.mktemp("native") / "checkpoint"
    convert(str(shipped), folder, verify=False)
    return folder


@pytest.fixture(scope="module")
def native(evaluate, folder):
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


def test_the_readme_example_answers_from_the_video(nano, folder, videos, tmp_path, monkeypatch):
    """The code for LLaVA-OneVision, with the miniature in its place and a question that the miniature understands."""
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    (example,) = (block for block in blocks if ONEVISION in block)
    (tmp_path / ONEVISION).parent.mkdir()
    (tmp_path / ONEVISION).symlink_to(folder)
    (tmp_path / "video.mp4").symlink_to(videos[0].path.resolve())
    monkeypatch.chdir(tmp_path)
    questions, right = nano("questions"), 0
    for row in videos[0].rows[:4]:
        text = "\n".join([questions.INSTRUCTION, row["question"], *row["options"], "", questions.CLOSING])
        variables = {}
        exec(example.replace('"What happens?"', repr(text)), variables)  # noqa: S102
        output, inputs = variables["output"], variables["inputs"]
        answer = variables["processor"].batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        assert variables["block"].last.num_removed > 0
        right += answer == [row["answer"]]
    assert right >= 3
