"""Seconds and folders of a sweep."""

from pathlib import Path

import pytest

from lmms_eval_stgridpool.comparison.sweeping import output_folder, shared_seconds


def test_reading_and_encoding_count_in_whichever_run_they_were_needed_first():
    """The third method changes frames, so it has its videos read and encoded once more; the second run gave up."""
    first = {"requests": 4, "seconds": {"decode": 1.0, "vision": 2.0, "prefill": 100.0}}
    third = {"requests": 4, "seconds": {"decode": 3.0, "vision": 2.0, "prefill": 100.0}}
    assert shared_seconds([first, None, third]) == pytest.approx(8 / 4)


def test_runs_without_new_answers_share_no_seconds():
    assert shared_seconds([{"requests": 0, "seconds": {}}]) == 0.0


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        (("quiz", "pretrained=/a/b", "entering_llm", None), "runs/quiz/sweep"),
        (("quiz", "pretrained=/a/b,fps=1,resume_dir=/c", "entering_llm", None), "runs/quiz/sweep_fps=1"),
        (("a,b", "pretrained=/a/b,fps=2", "kv_read", 20.0), "runs/a+b/sweep_fps=2_retention_of=kv_read_limit=20"),
        (("quiz", "pretrained=/a/b", "entering_llm", None, Path("x")), "runs/quiz/sweep_include_path=x"),
    ],
)
def test_sweeps_with_other_options_write_elsewhere(options, folder):
    names = ("tasks", "model_args", "retention_of", "limit", "include_path")
    assert output_folder(Path("runs"), **dict(zip(names, options, strict=False))) == Path(folder)


def test_sweeps_over_tables_of_one_name_write_elsewhere(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "clips.csv").touch()
    one, other = (output_folder(tmp_path, str(tmp_path / name / "clips.csv"), "pretrained=x").parent for name in "ab")
    assert one != other
    assert one.name.startswith("my_videos_clips_")
