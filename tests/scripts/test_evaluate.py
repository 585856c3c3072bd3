"""The evaluation command starts lmms-eval as it says and believes only a new results file.

A stand-in for Python notes how it was called and, if the test asks for it, writes a results file.
"""

import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from processes import left_running

REPOSITORY = Path(__file__).resolve().parents[2]
STAND_IN = """#!/usr/bin/env bash
if [[ "$2" == lmms_eval_stgridpool.run.check_command ]]; then
  [[ "$MISTAKE" != Ctrl-C ]] || kill -INT 0 # as a terminal does
  [[ -z "$MISTAKE" ]] || { echo "$3: $MISTAKE" >&2; exit 2; }
  output="${8#--output=}"
  printf '%s\\n' "$NUM_GPUS" "$CLASS" "${TASK:-$9}" folder_of_tasks "${output:-default}" ${4#--launch=}
  exit
fi
[[ "$1" != -c ]] || exec "$REAL_PYTHON" "$@"
printf '%s\\n' "$@" >"$NOTES"
printf 'HF_HOME=%s\\nACCELERATE_USE_CPU=%s\\n' "$HF_HOME" "${ACCELERATE_USE_CPU:-}" >>"$NOTES"
for ((index = 1; index < $#; index++)); do
  next=$((index + 1))
  [[ -z "$CAUSES" || "${!index}" != --output_path ]] || printf "$CAUSES" >>"${!next}/.cause_of_failure"
done
if [[ -n "$RESULTS" ]]; then
  mkdir -p "$(dirname "$RESULTS")"
  echo "$WRITES" >"$RESULTS"
  touch -t 203801010000 "$RESULTS" # file times are coarse
fi
if [[ -n "$PIDS" ]]; then # a launcher with a rank
  [[ -z "$DEAF" ]] || trap '' TERM # both hear the last signal alone
  tail -f /dev/null &
  echo "$$ $!" >"$PIDS.new"
  mv "$PIDS.new" "$PIDS"
  wait
fi
exit "$STATUS"
"""
LONG = 300  # seconds until a test gives up
FAILED = {"run_failed": "the run failed: 3 of 4 questions could not be answered (unreadable video: 3)"}
FEW = {"unanswered": {"questions": 1, "of": 4, "reasons": {"unreadable video": 1}}}


@pytest.fixture
def start(tmp_path):
    """Function that starts the command in a repository without .venv; returns the process."""
    return _starter(tmp_path)


def _starter(tmp_path):
    for name in ("lmms_eval/stgridpool/run/evaluate.sh", "scripts/evaluate.sh"):
        script = tmp_path / "repository" / name
        script.parent.mkdir(parents=True)
        shutil.copy(REPOSITORY / name, script)
    stand_in = tmp_path / "bin" / "python3"
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)

    def start(*words, results=tmp_path / "out" / "model" / "now_results.json", status=0, num_gpus=0, **more):
        own = {"HF_HOME", "ACCELERATE_USE_CPU"}
        environment = {
            **{name: value for name, value in os.environ.items() if name not in own},
            "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path / "home"),
            "NOTES": str(tmp_path / "notes"),
            "RESULTS": str(results or ""),
            "WRITES": json.dumps(more.get("writes", {})),
            "PIDS": str(more.get("pids", "")),
            "DEAF": "yes" if more.get("is_deaf") else "",
            "STATUS": str(status),
            "NUM_GPUS": str(num_gpus),
            "MISTAKE": more.get("mistake", ""),
            "CAUSES": more.get("causes", ""),
            "CLASS": more.get("model", "llava_video"),
            "REAL_PYTHON": sys.executable,
        }
        for earlier in (tmp_path / "out").rglob("*_results.json"):
            os.utime(earlier, (0, 0))
        output = more.get("output", "out")
        own = [] if output is None else ["--output", str(tmp_path / output)]
        command = ["bash", script, *own, *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        pipes["start_new_session"] = environment["MISTAKE"] == "Ctrl-C"
        return subprocess.Popen(command, env=environment, cwd=tmp_path, **pipes)

    return start


def test_ctrl_c_during_the_checks_is_one_line(start):
    process = start("quiz", mistake="Ctrl-C")
    said = process.communicate(timeout=LONG)
    assert (process.returncode, *said) == (130, "", "evaluate.sh: stopped by SIGINT before anything was loaded\n")


@pytest.fixture
def evaluate(start, tmp_path):
    """Function that runs the command to its end; returns the process and the lines noted."""

    def run(*words, **options):
        process = start(*words, **options)
        stdout, stderr = process.communicate(timeout=LONG)
        notes = tmp_path / "notes"
        done = SimpleNamespace(returncode=process.returncode, stdout=stdout, stderr=stderr)
        return done, notes.read_text().splitlines() if notes.exists() else []

    return run


def after(lines, option):
    return lines[lines.index(option) + 1]


def test_the_checks_name_the_default_folder(evaluate, tmp_path):
    done, lines = evaluate("videomme", output=None, results=tmp_path / "default" / "model" / "now_results.json")
    assert done.returncode == 0, done.stderr
    assert after(lines, "--output_path") == "default"
    assert after(lines, "--model_args").endswith(",resume_dir=default/answers")


def test_blanks_and_quotes_in_paths_stay_as_they_are(evaluate, tmp_path):
    """Quotes are in pairs; the checks refuse others."""
    output = "a 'quoted' folder"
    results = tmp_path / output / "a model" / "now_results.json"
    done, lines = evaluate("quiz", "my 'own' model", output=output, results=results)
    assert done.stdout == f"evaluate.sh: results in {results}\n", done.stderr
    assert after(lines, "--output_path") == f"{tmp_path}/{output}"
    expected = f"pretrained=my 'own' model,compressor=st_gridpool,resume_dir={tmp_path}/{output}/answers"
    assert after(lines, "--model_args") == expected


def test_defaults_on_a_machine_without_gpus(evaluate, tmp_path):
    done, lines = evaluate("videomme")
    assert done.returncode == 0
    assert done.stdout == f"evaluate.sh: results in {tmp_path}/out/model/now_results.json\n"
    assert after(lines, "--tasks") == "videomme"
    assert after(lines, "--model_args") == (
        f"pretrained=lmms-lab/LLaVA-Video-7B-Qwen2,compressor=st_gridpool,resume_dir={tmp_path}/out/answers"
    )
    assert after(lines, "--include_path") == "folder_of_tasks"
    assert after(lines, "--model") == "llava_video"
    assert after(lines, "--num_processes") == "1"
    assert "--multi_gpu" not in lines
    assert f"HF_HOME={tmp_path}/home/.cache/huggingface" in lines
    assert "ACCELERATE_USE_CPU=true" in lines


def test_several_processes_share_the_cpu_only_without_gpus(evaluate):
    _, lines = evaluate("videomme", "checkpoint", "bilinear", "2")
    assert after(lines, "--num_processes") == "2"
    assert {"--multi_gpu", "ACCELERATE_USE_CPU=true"} <= set(lines)
    _, lines = evaluate("videomme", "checkpoint", "bilinear", num_gpus=4)
    assert after(lines, "--num_processes") == "4"
    assert {"--multi_gpu", "ACCELERATE_USE_CPU="} <= set(lines)


def test_model_arguments_and_options_of_lmms_eval_are_passed_on(evaluate, tmp_path):
    options = 'compressor_args={"preset":"paper","ceil_mode":true}'
    _, lines = evaluate("quiz", "my model", "nsp", "1", "max_frames_num=8", options, "--", "--limit", "a b")
    assert after(lines, "--model_args") == (
        f"pretrained=my model,compressor=nsp,resume_dir={tmp_path}/out/answers,max_frames_num=8,{options}"
    )
    assert after(lines, "--limit") == "a b"


def test_a_model_argument_of_the_user_stands_once(evaluate):
    _, lines = evaluate("quiz", "checkpoint", "nsp", "1", "resume_dir=elsewhere", "conv_template=plain")
    assert after(lines, "--model_args") == (
        "pretrained=checkpoint,compressor=nsp,resume_dir=elsewhere,conv_template=plain"
    )


def test_options_of_the_launcher_come_last(evaluate):
    options = "--num_machines 2 --machine_rank {} --main_process_ip 10.0.0.1"
    done, lines = evaluate("--launch", options.format(0), "quiz", "checkpoint", "nsp", "16")
    assert done.returncode == 0
    launcher = lines[: lines.index("lmms_eval")]
    assert launcher[-7:] == [*options.format(0).split(), "-m"]
    assert launcher.index("--num_processes") < launcher.index("--main_process_ip")
    done, _ = evaluate("--launch", options.format(0), "quiz", results=None)
    assert done.returncode == 1
    done, _ = evaluate("--launch", options.format(1), "quiz", results=None)  # the first machine writes the results
    assert done.returncode == 0


def test_a_run_without_new_results_fails_although_lmms_eval_does_not(evaluate, tmp_path):
    old = tmp_path / "out" / "model" / "old_results.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    os.utime(old, (0, 0))
    done, _ = evaluate("quiz", results=None)
    assert done.returncode == 1
    assert "the run wrote no results below" in done.stderr


def test_a_run_that_fails_fails_whatever_it_wrote(evaluate):
    done, _ = evaluate("quiz", status=3)
    assert done.returncode == 3
    assert "results in" not in done.stdout


def test_a_run_that_cannot_work_is_not_started_and_the_cause_is_the_last_line(evaluate):
    done, lines = evaluate("quiz", mistake="there is no task 'quiz'")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "evaluate.sh: there is no task 'quiz'\n")
    assert not lines


def test_a_native_model_is_started_by_its_own_name(evaluate):
    _, lines = evaluate("quiz", "checkpoint", model="video_hf")
    assert after(lines, "--model") == "video_hf"


def test_one_folder_of_task_files_is_named_and_stands_last(evaluate):
    _, lines = evaluate("--include_path", "mine", "quiz", "checkpoint", "nsp", "1", "--", "--include_path", "other")
    options = lines[lines.index("lmms_eval") :]
    assert options[options.index("folder_of_tasks") - 1] == "--include_path"
    assert options.index("folder_of_tasks") > options.index("other")


def test_unanswered_questions_are_counted_in_the_last_line(evaluate, tmp_path):
    done, _ = evaluate("quiz", writes=FEW)
    assert done.returncode == 0
    results = tmp_path / "out" / "model" / "now_results.json"
    assert done.stdout == f"evaluate.sh: results in {results}; 1 of 4 questions could not be answered\n"


@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_failed_run_says_why_in_the_last_line(evaluate, status):
    done, _ = evaluate("quiz", writes=FAILED, status=status)
    assert done.returncode == max(status, 1)
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"evaluate.sh: {FAILED['run_failed']}; marked results in ")
    assert "results in" not in done.stdout


def test_a_run_that_ends_badly_says_so_in_the_last_line(evaluate):
    done, _ = evaluate("quiz", results=None, status=3)
    assert done.stderr.splitlines()[-1] == "evaluate.sh: the run ended with status 3: its messages above say why"


def test_the_first_cause_that_a_rank_notes_is_the_last_line(evaluate, tmp_path):
    causes = "rank 1, document 3: KeyError\\nrank 0 timed out\\n"
    done, _ = evaluate("quiz", results=None, status=1, causes=causes)
    assert done.stderr.splitlines()[-1] == "evaluate.sh: the run ended with status 1: rank 1, document 3: KeyError"
    done, _ = evaluate("quiz", results=None, causes=causes)
    last = f"evaluate.sh: the run wrote no results below {tmp_path}/out: rank 1, document 3: KeyError"
    assert done.stderr.splitlines()[-1] == last
    assert not (tmp_path / "out" / ".cause_of_failure").exists()


@pytest.mark.skipif(shutil.which("flock") is None, reason="there is no flock")
def test_a_second_run_in_the_same_folder_is_refused(evaluate, tmp_path):
    """They would mix their causes of failure and their results."""
    output = tmp_path / "out"
    output.mkdir()
    folder = os.open(output, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    done, notes = evaluate("quiz")
    second, _ = evaluate("--launch", "--num_machines 2 --machine_rank 1", "quiz")  # of one run, on another machine
    os.close(folder)
    assert second.returncode == 0
    assert (done.returncode, notes) == (1, [])
    expected = f"another run is writing to {output}: wait until it has ended, or pass another folder with --output"
    assert done.stderr.splitlines()[-1] == f"evaluate.sh: {expected}"
    assert evaluate("quiz")[0].returncode == 0


ENDS = [(signal.SIGHUP, False), (signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGKILL, False)]
ENDS += [(signal.SIGKILL, True)]  # with a launcher and a rank that hear no other signal


@pytest.fixture(scope="module")
def adopted():
    """This process adopts those whose parent has ended, and does not ask for their status while the tests run."""
    if sys.platform != "linux":
        yield
        return
    set_child_subreaper = 36
    libc = ctypes.CDLL(None)
    libc.prctl(set_child_subreaper, 1)
    yield
    libc.prctl(set_child_subreaper, 0)


@pytest.fixture(scope="module")
def ended(tmp_path_factory, adopted):
    """Each script, after a signal has ended it; all are ended at the same time.

    The processes of a run may take 5 s to end. Those that hear nothing get half a second here, the others ten minutes:
    a script that takes a process for alive that has ended does not end in time.
    """
    started = {}
    for how, is_deaf in ENDS:
        folder = tmp_path_factory.mktemp("ending")
        start = _starter(folder)
        script = folder / "repository" / "lmms_eval" / "stgridpool" / "run" / "evaluate.sh"
        text = script.read_text()
        assert text.count("tenths < 50;") == 1
        script.write_text(text.replace("tenths < 50;", f"tenths < {5 if is_deaf else 6000};"))
        process = start("quiz", pids=folder / "pids", is_deaf=is_deaf)
        started[how, is_deaf] = SimpleNamespace(process=process, folder=folder)
    for one in started.values():
        while not (one.folder / "pids").exists():
            assert one.process.poll() is None
            time.sleep(0.01)
        one.run = [psutil.Process(int(pid)) for pid in (one.folder / "pids").read_text().split()]
    for (how, _), one in started.items():
        one.process.send_signal(how)
    for one in started.values():
        _, one.stderr = one.process.communicate(timeout=LONG)  # not before the guard has ended, too
        one.alive = left_running(one.run, LONG)
        for process in one.alive:
            process.kill()
    return started


@pytest.mark.parametrize(("how", "is_deaf"), ENDS)
def test_the_run_ends_with_the_script(ended, how, is_deaf):
    one = ended[how, is_deaf]
    assert not one.alive
    assert one.process.returncode == (-how if how == signal.SIGKILL else 128 + how)
    said = f"stopped by {how.name}: all answers so far are kept in {one.folder}/out/answers; give the same command"
    assert how == signal.SIGKILL or one.stderr.splitlines()[-1] == f"evaluate.sh: {said} again to resume"
