"""The commands that evaluate, compare, extract and submit hand their options over."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from lmms_eval_stgridpool.cli.app import app
from lmms_eval_stgridpool.comparison.finished_run import FinishedRun
from lmms_eval_stgridpool.comparison.rows import Row
from lmms_eval_stgridpool.comparison.sweeping import Outcome, Sweep
from lmms_eval_stgridpool.videos.extraction import Extraction

ROW = Row("nsp", "quiz", "NSP()", 4, 0, None, 4.0, 8.0, 0.0, 1.0, 1.0, 0.5, "acc", 50.0, None, {}, 100)


def invoke(*words):
    return CliRunner().invoke(app, list(map(str, words)))


@pytest.fixture(autouse=True)
def _not_checked(monkeypatch):
    """Let sweeps name checkpoints and tasks that are not there; tests of the checks are in run/test_sweep_checks.py."""
    monkeypatch.setattr("lmms_eval_stgridpool.cli.runs.check_first", lambda name, check: None)


@pytest.fixture
def started(monkeypatch):
    """The command that `eval` becomes."""
    found = []
    monkeypatch.setattr(os, "execvp", lambda file, command: found.append(command))
    return found


def test_eval_becomes_the_script_of_the_package(started):
    options = ["max_frames_num=8", 'compressor_args={"kernel_size":3}']
    invoke("eval", "videomme_local", "ckpt", *options, "-c", "nsp", "-n", 2)
    [command] = started
    script, own, given = Path(command[1]), command[2:8], command[8:]
    assert script.is_file()
    assert own[:4] == ["--name", "stgridpool eval", "--python", sys.executable]
    assert own[4:] == ["--runs", "logs/runs"]
    assert given == ["videomme_local", "ckpt", "nsp", "2", *options]


def test_eval_passes_options_of_the_launcher_and_of_lmms_eval(started):
    more = ["--launch", "--num_machines 2", "--include-path", "tasks", "--lmms-eval", "--limit 20"]
    invoke("eval", "t", "ckpt", "--output", "out", *more)
    own = ["--output", "out", "--include_path", "tasks", "--launch", "--num_machines 2"]
    given = ["t", "ckpt", "st_gridpool"]
    assert started[0][8:] == [*own, *given, "--", "--limit", "20"]


def test_eval_refuses_a_word_that_is_not_an_argument(started):
    assert str(invoke("eval", "t", "ckpt", "nsp").exception) == "arguments of the model are KEY=VALUE, got 'nsp'"
    assert not started


def test_the_script_of_the_package_needs_its_callers():
    script = Path(sys.modules[invoke.__module__].__file__).resolve().parents[4] / "lmms_eval/stgridpool/run/evaluate.sh"
    run = subprocess.run(["bash", script, "videomme"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr == "evaluate.sh: start scripts/evaluate.sh or stgridpool eval instead\n"


def test_a_sweep_gets_its_options(monkeypatch):
    seen = []
    monkeypatch.setattr(Sweep, "run", lambda self: seen.append(self) or Outcome((ROW,), ("a remark",), 0.25))
    words = ["sweep", "nsp", 'average:{"kernel_size":3}', "--tasks", "quiz", "--model_args", "pretrained=x"]
    result = invoke(*words, "--retention", 0.5, "--retention", 0.25, "--retention-of", "last_layer", "-o", "out")
    [sweep] = seen
    assert [choice.folder for choice in sweep.choices] == ["nsp", "average_kernel_size=3"]
    assert (sweep.retention, sweep.retention_of, sweep.output_path) == ((0.5, 0.25), "last_layer", Path("out"))
    assert result.output.splitlines()[-3:] == [
        "a remark",
        "Reading and encoding, all compressors together: 0.250 seconds per question.",
        "Results: out",
    ]
    invoke(*words, "--limit", 3, "--uncompressed")
    assert seen[1].output_path == Path("logs/runs/quiz/sweep_limit=3")
    assert [one.has_own for one in seen] == [False, True]
    assert json.loads(invoke(*words, "--json").output)["shared_seconds"] == 0.25


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("sweeping", ["sweep", "nsp", "--tasks", "quiz", "--model_args", "pretrained=x"]),
        ("choosing", ["choose", "a.mp4", "--checkpoint", "x"]),
    ],
)
def test_lmms_eval_is_imported_to_log_to_standard_error(monkeypatch, module, words):
    """It logs to what is standard output then, where the result stands alone."""
    seen = []

    class Imported(ModuleType):
        def __getattr__(self, name):
            seen.append(sys.stdout is sys.stderr)
            raise AttributeError(name)

    monkeypatch.setattr("lmms_eval_stgridpool.cli.choose.check_first", lambda name, check: None)
    monkeypatch.setitem(sys.modules, f"lmms_eval_stgridpool.comparison.{module}", Imported(module))
    invoke(*words)
    assert seen
    assert all(seen)


def test_a_sweep_in_which_a_run_failed_fails(monkeypatch):
    row = Row(**vars(ROW) | {"failure": "the run failed: no video"})
    monkeypatch.setattr(Sweep, "run", lambda self: Outcome((row,), (), 0.0))
    result = invoke("sweep", "nsp", "--tasks", "quiz", "--model_args", "pretrained=x")
    assert str(result.exception).startswith("a run failed, see above.")


def test_a_sweep_on_several_processes_is_launched_with_the_same_options(monkeypatch):
    class LaunchedError(Exception):
        pass

    def launched(program, words, environment):
        raise LaunchedError(words)

    monkeypatch.setattr("os.execvpe", launched)
    words = ["nsp", "none", "--tasks", "quiz", "--model_args", "pretrained=x", "--retention-of", "kv_read"]
    words += ["--retention", "0.5", "--retention", "0.25", "--limit", "3.0"]
    words += ["--uncompressed", "--output_path", "out", "--json"]
    result = invoke("sweep", *words, "--processes", 2)
    assert isinstance(result.exception, LaunchedError)
    [command] = result.exception.args
    start = command.index("sweep")
    assert command[start - 3 : start] == ["-m", "lmms_eval_stgridpool.cli", "--launched"]
    assert command[start + 1 :] == words
    assert command[command.index("--num_processes") + 1] == "2"


def test_features_are_extracted_on_several_processes(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "lmms_eval_stgridpool.cli.launching.os.execvpe", lambda *words: seen.append(words) or sys.exit()
    )
    words = ["a.mp4", "clips", "--tasks", "quiz", "--model_args", "feature_cache=cache", "--include_path", "own"]
    invoke("extract", *words, "--json", "-n", 3)
    [(_, command, _)] = seen
    assert command[command.index("--num_processes") + 1] == "3"
    assert command[command.index("--launched") + 1 :] == ["extract", *words, "--json"]
    assert command[3] == (
        "stgridpool extract: stopped: all features so far are kept in the cache; give the same command again to resume"
    )


def test_a_sweep_that_no_compressor_can_meet_fails(monkeypatch):
    monkeypatch.setattr(Sweep, "run", lambda self: Outcome((), ("none@0.5: left out: it has no budget",), 0.0))
    result = invoke("sweep", "none", "--tasks", "quiz", "--model_args", "pretrained=x", "--retention", 0.5)
    assert "no compressor could meet its budget: none@0.5" in str(result.exception)


def test_runs_are_compared(monkeypatch, tmp_path):
    seen, run = [], FinishedRun("nsp", {}, {}, {})
    comparison = "lmms_eval_stgridpool.comparison"
    monkeypatch.setattr(f"{comparison}.finished_run.find_runs", lambda folders: seen.append(folders) or [run])
    monkeypatch.setattr(f"{comparison}.rows.rows_of", lambda run, by, of: seen.append((run, by, of)) or [ROW])
    assert "50.00" in invoke("compare", tmp_path, "--by", "duration").output
    assert seen == [[tmp_path], (run, "duration", "last_layer")]
    assert json.loads(invoke("compare", tmp_path, "--json").output)[0]["run"] == "nsp"
    assert invoke("compare", tmp_path, "--markdown").output.startswith("quiz, acc:")


def test_runs_of_changed_files_are_compared_only_if_one_insists(monkeypatch, tmp_path):
    runs = [FinishedRun(n, {"fingerprints": {"tasks": {"quiz": {"quiz.yaml": n}}}}, {}, {"quiz": []}) for n in "ab"]
    monkeypatch.setattr("lmms_eval_stgridpool.comparison.finished_run.find_runs", lambda folders: runs)
    monkeypatch.setattr("lmms_eval_stgridpool.comparison.rows.rows_of", lambda run, by, of: [ROW])
    sentence = "a and b ran different files of task quiz (quiz.yaml)"
    refused = invoke("compare", tmp_path)
    assert str(refused.exception) == f"{sentence}: run them again, or compare them with --anyway"
    shown = invoke("compare", tmp_path, "--anyway", "--json")
    assert f"stgridpool compare: {sentence}" in shown.stderr
    assert len(json.loads(shown.stdout)) == 2


def test_a_folder_without_a_run_is_an_error(tmp_path):
    assert "did the run fail?" in str(invoke("compare", tmp_path).exception)


def test_features_are_extracted(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "lmms_eval_stgridpool.videos.extraction.extract_all",
        lambda *words: seen.append(words) or Extraction(3, 1, ("a.mp4: damaged",), "cache", True),
    )
    result = invoke("extract", "a.mp4", "--tasks", "quiz,test", "--model_args", "feature_cache=cache")
    assert seen == [([Path("a.mp4")], ["quiz", "test"], "feature_cache=cache", [])]
    assert "3 videos: 1 encoded, 1 were there, 1 failed. Features in cache" in result.output
    assert "a.mp4: damaged" in result.output
    assert result.exit_code == 1


def test_a_submission_is_checked(tmp_path):
    (tmp_path / "answers.json").write_text(json.dumps({"a": 0, "b": 4}))
    (tmp_path / "questions.json").write_text(json.dumps([{"q_uid": "a"}, {"q_uid": "b"}]))
    words = ["submit", tmp_path / "answers.json", "--questions", tmp_path / "questions.json", "--dry-run"]
    assert "2 answers, in order" in invoke(*words).output
    error = str(invoke(*words, "--url", "").exception)  # not the server of EgoSchema
    assert error.startswith("the URL must be http[s]://HOST/..., without a password, got ''")
    (tmp_path / "answers.json").write_text(json.dumps({"a": 7, "b": 4}))
    error = str(invoke(*words).exception)
    assert error.endswith("nothing was sent")
    assert "answers.json" in error
