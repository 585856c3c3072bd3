"""Folders of a sweep."""

import subprocess
import sys
from pathlib import Path

import pytest

from lmms_eval_stgridpool.comparison.folders import kept_answers, output_folder


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


@pytest.mark.parametrize(("more", "folder"), [("", "out/answers"), (",resume_dir=elsewhere", "elsewhere")])
def test_answers_are_kept_with_the_results_or_elsewhere(more, folder):
    said = kept_answers(f"pretrained=/a/b{more}", Path("out"))
    assert said == f"all answers so far are kept in {folder}"


def test_folders_are_known_without_torch_and_lmms_eval(environment):
    code = "import sys, lmms_eval_stgridpool.comparison.folders; print({'torch', 'lmms_eval'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
