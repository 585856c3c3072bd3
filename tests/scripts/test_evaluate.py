"""The evaluation command starts lmms-eval as it says and believes only a new results file.

A stand-in for Python notes how it was called and, if the test asks for it, writes a results file.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
STAND_IN = """#!/usr/bin/env bash
if [[ "$1" == -c ]]; then echo "$NUM_GPUS"; exit; fi
printf '%s\\n' "$@" >"$NOTES"
printf 'HF_HOME=%s\\nACCELERATE_USE_CPU=%s\\n' "$HF_HOME" "${ACCELERATE_USE_CPU:-}" >>"$NOTES"
if [[ -n "$RESULTS" ]]; then
  mkdir -p "$(dirname "$RESULTS")"
  echo '{}' >"$RESULTS"
  touch -t 203801010000 "$RESULTS" # file times are coarse
fi
exit "$STATUS"
"""


@pytest.fixture
def evaluate(tmp_path):
    """Function that runs the command in a repository without .venv; returns the process and the lines noted."""
    (tmp_path / "repository" / "scripts").mkdir(parents=True)
    script = shutil.copy(REPOSITORY / "scripts" / "evaluate.sh", tmp_path / "repository" / "scripts")
    stand_in = tmp_path / "bin" / "python3"
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    notes = tmp_path / "notes"

    def run(*words, results=tmp_path / "out" / "model" / "now_results.json", status=0, num_gpus=0):
        environment = {
            **{name: value for name, value in os.environ.items() if name not in {"HF_HOME", "ACCELERATE_USE_CPU"}},
            "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path / "home"),
            "NOTES": str(notes),
            "RESULTS": str(results or ""),
            "STATUS": str(status),
            "NUM_GPUS": str(num_gpus),
        }
        for earlier in (tmp_path / "out").rglob("*_results.json"):
            os.utime(earlier, (0, 0))
        command = ["bash", script, "--output", str(tmp_path / "out"), *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
        return done, notes.read_text().splitlines() if notes.exists() else []

    return run


def after(lines, option):
    return lines[lines.index(option) + 1]


def test_defaults_on_a_machine_without_gpus(evaluate, tmp_path):
    done, lines = evaluate("videomme")
    assert done.returncode == 0
    assert done.stdout == f"evaluate.sh: results in {tmp_path}/out/model/now_results.json\n"
    assert after(lines, "--tasks") == "videomme"
    assert after(lines, "--model_args") == (
        "pretrained=lmms-lab/LLaVA-Video-7B-Qwen2,conv_template=qwen_1_5,model_name=llava_qwen,compressor=st_gridpool,"
        f"resume_dir={tmp_path}/out/answers"
    )
    assert after(lines, "--include_path") == f"{tmp_path}/repository/custom_tasks"
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
        "pretrained=my model,conv_template=qwen_1_5,model_name=llava_qwen,compressor=nsp,"
        f"resume_dir={tmp_path}/out/answers,max_frames_num=8,{options}"
    )
    assert after(lines, "--limit") == "a b"


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


def test_the_number_of_processes_is_checked(evaluate):
    done, _ = evaluate("quiz", "checkpoint", "nsp", "two")
    assert done.returncode == 2
    assert "NUM_PROCESSES must be a number from 1, got two" in done.stderr
