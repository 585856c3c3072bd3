"""The functions of the task files that need no task around them; tests/custom_tasks has the rest."""

from pathlib import Path

import pytest

from lmms_eval_stgridpool.tasks.local import doc_to_visual, nextqa_process_results, tempcompass_process_results

NEXTQA = {"answer": 1, "a0": "rain", "a1": "warm food", "a2": "dog", "a3": "fun", "a4": "sun"}


def find(folder, video):
    (path,) = doc_to_visual({"video": video}, {"video_dir": str(folder), "video_field": "video"})
    return Path(path)


@pytest.mark.parametrize("file", ["a.mp4", "a.MP4", "a.mkv", "a.webm"])
def test_a_name_without_suffix_finds_the_file_whatever_its_suffix(tmp_path, file):
    (tmp_path / file).touch()
    assert find(tmp_path, "a") == tmp_path / file


def test_a_name_with_suffix_is_taken_as_it_is(tmp_path):
    (tmp_path / "a.mkv").touch()
    (tmp_path / "a.mkv.mp4").touch()
    assert find(tmp_path, "a.mkv") == tmp_path / "a.mkv"


def test_a_number_is_a_name(tmp_path):
    (tmp_path / "7.mp4").touch()
    assert find(tmp_path, 7) == tmp_path / "7.mp4"


@pytest.mark.parametrize(("video", "expected"), [("a", "a.mp4"), ("a.b", "a.b.mp4"), ("a.avi", "a.avi"), (7, "7.mp4")])
def test_a_missing_video_gives_the_path_where_it_was_expected(tmp_path, video, expected):
    assert find(tmp_path, video) == tmp_path / expected


def test_the_folder_may_start_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.mp4").touch()
    assert find("~", "a") == tmp_path / "a.mp4"


@pytest.mark.parametrize(
    "answer", ["B", "(B)", "B. warm food", "The answer is B", "I am sure that she got warm food", "(A) or (B)"]
)
def test_nextqa_right_answers(answer):
    """The last letter that is named counts; so does a whole option in an answer of more than five words."""
    assert nextqa_process_results(NEXTQA, [answer]) == {"exact_match": True, "letter_read": "B"}


@pytest.mark.parametrize(("answer", "read"), [("A", "A"), (" ", ""), ("", ""), ("(B) or (A)", "A")])
def test_nextqa_wrong_answers(answer, read):
    assert nextqa_process_results(NEXTQA, [answer]) == {"exact_match": False, "letter_read": read}


def rate_tempcompass(answer):
    doc = {"video_id": "v", "question": "?", "answer": "B. down", "dim": "order"}
    scored = tempcompass_process_results(doc, [answer])
    assert set(scored) == {"avg_accuracy", "order_accuracy", "letter_read"}
    return scored["avg_accuracy"]["rating"], scored["avg_accuracy"]["match_success"], scored["letter_read"]


@pytest.mark.parametrize("answer", ["B. down", "B", "B.", "B) up"])
def test_tempcompass_right_answers(answer):
    assert rate_tempcompass(answer) == (1, True, "B")


@pytest.mark.parametrize("answer", ["A", "A. up", "D)"])
def test_tempcompass_wrong_answers(answer):
    assert rate_tempcompass(answer) == (0, True, answer[0])


@pytest.mark.parametrize("answer", ["down", "", "Because", "(B)", "E", "B\n"])
def test_tempcompass_unmatched_answers_are_wrong(answer):
    assert rate_tempcompass(answer) == (0, False, "")
