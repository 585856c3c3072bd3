"""The shell commands parse, explain themselves, and reject what they do not know."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lmms_eval_stgridpool.comparison.choice import Choice, at_retentions
from stgridpool import Bilinear
from stgridpool.equal_budget import Reference, planned_retention
from stgridpool.retention import DEFINITIONS

EMPTY_PATHS = [
    ("sweep", "--tasks", "x", "--model_args", "pretrained=x", "none", "--output_path", ""),
    ("sweep", "--tasks", "x", "--model_args", "pretrained=x", "none", "--include_path", ""),
    ("extract_features", "--model_args", "pretrained=x,feature_cache=y", ""),
    ("import_features", "", "videos", "--model_args", "pretrained=x,feature_cache=y"),
    ("compare_runs", ""),
    ("make_tiny_checkpoint", ""),
    ("nano/make_data", ""),
    ("nano/train", "--output", ""),
    ("nano/evaluate", "--data", ""),
    ("benchmark", "pooling", "--output", ""),
]
REPOSITORY = Path(__file__).resolve().parents[2]
SHELL_SCRIPTS = sorted((REPOSITORY / "scripts").glob("*.sh"))


def run(*command, cwd=REPOSITORY):
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", [*SHELL_SCRIPTS, REPOSITORY / ".ci" / "run"], ids=lambda path: path.name)
def test_shell_scripts_parse_and_stop_at_errors(script):
    assert run("bash", "-n", script).returncode == 0
    assert re.search(r"^set -e?uo pipefail$", script.read_text(), re.MULTILINE)


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_help_is_printed_and_nothing_is_done(script, tmp_path):
    shown = run("bash", script, "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"Usage: bash scripts/{script.name}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Usage:"),
        (("videomme", "--limit", "3"), "unknown option --limit; options of lmms-eval go after --"),
        (("--output",), "--output needs a folder"),
        (("--output", "", "videomme"), "--output needs a folder"),
        (("--output", " ", "videomme"), "--output needs a folder"),
        (("videomme", ""), "an argument is empty; is it a shell variable that is not set?"),
    ],
)
def test_evaluate_rejects_what_it_does_not_know(words, message):
    answer = run("bash", REPOSITORY / "scripts" / "evaluate.sh", *words)
    assert answer.returncode == 2
    assert message in answer.stderr


@pytest.mark.parametrize("words", EMPTY_PATHS, ids=" ".join)
def test_an_empty_path_is_not_the_working_directory(load_script, monkeypatch, capsys, tmp_path, words):
    script, *options = words
    folder = REPOSITORY / "scripts" / Path(script).parent
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])  # as Python does for a script
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *options])
    with pytest.raises(SystemExit, match="2"):
        load_script(script).main()
    assert "must be a path, got an empty text; is it a shell variable that is not set?" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def demo(tmp_path):
    """Function that starts the demo in a repository whose other commands do nothing; its demo/ may be there before."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shutil.copy(REPOSITORY / "scripts" / "demo.sh", scripts)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    for command in (python, scripts / "setup.sh", scripts / "evaluate.sh"):
        command.write_text("#!/usr/bin/env bash\nexit 0\n")
        command.chmod(0o755)
    return lambda: run("bash", scripts / "demo.sh", cwd=tmp_path)


def test_a_folder_that_no_demo_made_stays_as_it_is(demo, tmp_path):
    (tmp_path / "demo" / "data").mkdir(parents=True)
    (tmp_path / "demo" / "data" / "interviews.mp4").write_text("mine")
    done = demo()
    assert done.returncode == 1
    assert f"demo.sh: {tmp_path}/demo holds files that no demo made" in done.stderr
    assert [path.name for path in (tmp_path / "demo").rglob("*")] == ["data", "interviews.mp4"]


def test_the_methods_of_the_demo_leave_equally_many_tokens():
    """The miniature has 7x7 patches, of which its own pooling leaves 16, and five layers."""
    text = (REPOSITORY / "scripts" / "demo.sh").read_text()
    words = shlex.split(re.search(r"^compressors=\((.*)\)$", text, re.MULTILINE)[1])
    assert [word.partition(":")[0] for word in words] == [
        *("bilinear", "st_gridpool", "random", "downsample", "visionzip", "sttm"),
    ]
    budgets = re.search(r"^budgets=\((.*)\)$", text, re.MULTILINE)[1]
    shares = [float(word) for word in budgets.split() if not word.startswith("--")]
    reference = Reference(Bilinear(2), (7, 7), 5)
    found, remarks = at_retentions(list(map(Choice.parse, words)), shares, DEFINITIONS[0], reference, 16)
    assert not remarks
    left = [planned_retention(choice.build(), 16, reference) for choice in found]
    assert left == [dict.fromkeys(DEFINITIONS, share) for share in (9 / 16, 4 / 16) for _ in words]


def test_a_demo_replaces_only_what_demos_make(demo, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    assert demo().returncode == 0
    (tmp_path / "demo" / "notes.txt").touch()
    (tmp_path / "demo" / "data").symlink_to(tmp_path / "mine")
    (tmp_path / "demo" / "runs" / "old").mkdir(parents=True)
    assert demo().returncode == 0
    assert (tmp_path / "demo" / "notes.txt").exists()
    assert (tmp_path / "mine" / "file").exists()
    assert not (tmp_path / "demo" / "runs" / "old").exists()


@pytest.mark.parametrize("name", ["sweep", "extract_features"])
def test_another_package_of_the_name_llava_is_named_in_one_line(name, tmp_path):
    (tmp_path / "llava").mkdir()
    (tmp_path / "llava" / "__init__.py").touch()
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(REPOSITORY / "scripts" / f"{name}.py"), "--help"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{name}.py: `import llava` finds {tmp_path / 'llava'}, another project's package, but")
