"""Runs are compared only if what they call by one name is one thing."""

import pytest

from lmms_eval_stgridpool.comparison.fingerprints import check_comparable
from lmms_eval_stgridpool.comparison.finished_run import FinishedRun


def make(name, checkpoint="models/7B", frames=("f0", "f1"), task="y", weights="w", settings="s", most=64, **more):
    files = {"weights": {"model.safetensors": weights}, "settings": {"tokenizer.json": settings}}
    prints = {"pretrained": files, "tasks": {"quiz": {"quiz.yaml": task}}} | more
    record = {"checkpoint": checkpoint, "max_frames_num": most, "fps": None, "fingerprints": prints}
    samples = [{"doc_id": n, "token_counts": [None, {"frames_sha256": digest}]} for n, digest in enumerate(frames)]
    return FinishedRun(name, record, {}, {"quiz": samples})


def test_runs_that_share_everything_are_compared_in_silence():
    more = {"pool_head": {"weights": {"head.safetensors": "h"}, "settings": {}}}
    assert check_comparable([make("a"), make("b"), make("c", **more)]) == []
    assert check_comparable([make("a", checkpoint="here/7B"), make("b", checkpoint="there/7B")]) == []
    assert check_comparable([make("a")]) == check_comparable([]) == []


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"task": "z"}, "a and b ran different files of task quiz (quiz.yaml)"),
        (
            {"weights": "v"},
            "a and b ran different weights of the checkpoint of models/7B (model.safetensors)",
        ),
        (
            {"frames": ("f0", "g1")},
            "quiz: a and b saw different frames in 1 of 2 questions although they asked for the same: their videos "
            "differ",
        ),
    ],
)
def test_what_hides_behind_one_name_is_refused(other, sentence):
    runs = [make("a"), make("b", **other)]
    with pytest.raises(ValueError, match="--anyway") as refused:
        check_comparable(runs)
    assert str(refused.value) == f"{sentence}: run them again, or compare them with --anyway"
    assert check_comparable(runs, anyway=True) == [sentence]


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            {"weights": "v", "checkpoint": "models/72B"},
            "a ran models/7B, b models/72B, whose weights differ",
        ),
        ({"settings": "r"}, "a and b ran the same weights of the checkpoint with different settings (tokenizer.json)"),
        ({"frames": ("g0", "g1"), "most": 32}, "quiz: a and b saw different frames in 2 of 2 questions"),
    ],
)
def test_what_runs_say_themselves_is_a_warning(other, sentence):
    assert check_comparable([make("a"), make("b", **other)]) == [sentence]


def test_a_file_that_could_not_be_read_says_nothing():
    assert check_comparable([make("a"), make("b", weights=None)]) == []


def test_a_weight_file_that_one_run_lacks_is_a_difference():
    more = {"pretrained": {"weights": {"model.safetensors": "w", "adapter.safetensors": "x"}, "settings": {}}}
    with pytest.raises(ValueError, match=r"different weights of the checkpoint of models/7B \(adapter.safetensors\)"):
        check_comparable([make("a"), make("b", **more)])


def test_runs_of_earlier_versions_are_named():
    old = FinishedRun("old", {"checkpoint": "models/7B"}, {}, {"quiz": [{"doc_id": 0, "token_counts": [{}]}]})
    (warning,) = check_comparable([make("a", frames=("f0",)), old])
    assert warning == "old: no fingerprints, so nobody can tell whether files and frames are the same"


def test_runs_that_were_asked_other_questions_are_shown_with_a_warning():
    [warning] = check_comparable([make("a"), make("b", frames=("f0",))])
    assert warning == "quiz: a was asked 2 questions, and b 1, of which 1 are the same"
    trial = make("b", frames=("g0",), most=32)
    assert check_comparable([make("a"), trial]) == [warning, "quiz: a and b saw different frames in 1 of 1 questions"]
