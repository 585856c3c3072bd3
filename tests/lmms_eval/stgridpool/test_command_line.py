"""Whole runs of lmms-eval's command line, on one and on several processes."""

import hashlib
import json
import os
import re
import shutil
import signal
import time
from contextlib import suppress
from types import SimpleNamespace

import psutil
import pytest
import transformers
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.slow
QUESTIONS = 21  # seven in free text and two choices for each of seven
SMALL = "max_frames_num=8,torch_dtype=float32,decode_threads=1"
COMMAS = 'max_frames_num=8,compressor_args={"preset":"paper","kernel_size":3}'


@pytest.fixture(scope="module")
def start(tmp_path_factory, checkpoint, tasks, start_programs, environments_of_ranks):
    """Function that starts lmms-eval's command line; returns what `start_programs` does, and the folder of results."""

    def start(task, num_processes=1, model_args=SMALL, cwd=None, pretrained=checkpoint, **environment):
        output = tmp_path_factory.mktemp("output")
        command = ["-m", "lmms_eval", "--model", "llava_video", "--batch_size", "1", "--tasks", task]
        command += ["--include_path", tasks, "--output_path", output, "--log_samples"]
        command += ["--model_args", f"pretrained={pretrained},{model_args}"]
        environments = [environment | one for one in environments_of_ranks(num_processes)]
        return start_programs(*[command] * num_processes, cwd=cwd or output, environments=environments), output

    return start


@pytest.fixture(scope="module")
def run(start):
    """Function that runs lmms-eval to its end; returns exit statuses, messages and the folder of its output."""

    def run(*arguments, **options):
        started, output = start(*arguments, **options)
        statuses = started.wait().statuses
        messages = "".join(path.read_text() for logs in started.logs for path in logs)
        return SimpleNamespace(statuses=statuses, stdout=started.logs[0][0].read_text(), messages=messages), output

    return run


@pytest.fixture(scope="module")
def read_run(read_results):
    """Function that reads scores, samples by task and document, and the record of the run from a folder."""

    def read_run(folder):
        (results,) = folder.glob("*/*_results.json")
        (record,) = folder.glob("*/*_run.json")
        assert record.name.removesuffix("_run.json") == results.name.removesuffix("_results.json")
        samples = {
            file.name.split("_samples_")[1].removesuffix(".jsonl"): list(map(json.loads, file.open()))
            for file in folder.glob("*/*_samples_*.jsonl")
        }
        found = read_results(json.loads(results.read_text()) | {"samples": samples})
        return *found, json.loads(record.read_text())

    return read_run


@pytest.fixture(scope="module")
def both_runs(run, read_run):
    """The same two tasks on one and on two processes, with options that hold commas.

    scripts/demo.sh has accelerate start the two.
    """
    runs = []
    for num_processes in (1, 2):
        done, output = run("clips,clips_choice", num_processes, COMMAS)
        assert done.statuses == [0] * num_processes, done.messages
        runs.append((done, *read_run(output)))
    return runs


@pytest.mark.contract
def test_one_and_two_processes_give_the_same_scores_and_samples(both_runs):
    (_, scores, samples, _), (_, scores_of_two, samples_of_two, _) = both_runs
    assert scores_of_two == pytest.approx(scores, rel=1e-12)
    assert len(samples) == 14
    assert samples == samples_of_two


def test_a_killed_run_goes_on_with_three_processes(both_runs, start, run, read_run, tmp_path):
    started, _ = start("clips,clips_choice", 2, f"{COMMAS},resume_dir={tmp_path},decode_threads=1")
    while not list(tmp_path.glob("*.jsonl")):
        assert all(map(psutil.pid_exists, started.processes))
        time.sleep(0.002)
    for process in started.processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    started.wait()
    kept = sum(len(file.read_bytes().splitlines()) for file in tmp_path.glob("*.jsonl"))
    done, output = run("clips,clips_choice", 3, f"{COMMAS},resume_dir={tmp_path},decode_threads=1")
    assert done.statuses == [0, 0, 0], done.messages
    scores, samples, record = read_run(output)
    assert scores == pytest.approx(both_runs[0][1], rel=1e-12)
    assert samples == both_runs[0][2]
    assert abs(record["resumed_requests"] - kept) <= 1  # the last line may be torn
    assert record["requests"] + record["resumed_requests"] == QUESTIONS


@pytest.mark.parametrize("index", [0, 1])
def test_unreadable_videos_are_marked_counted_and_reported(both_runs, index):
    done, _, samples, record = both_runs[index]
    sample = samples["clips", 3]
    assert sample["filtered_resps"] == ""
    assert sample["token_counts"][0]["failed"] is True
    assert "broken.mp4: Invalid data found" in sample["token_counts"][0]["failure"]
    failed = [key for key, sample in samples.items() if any(count["failed"] for count in sample["token_counts"])]
    assert sorted(failed) == [("clips", 3), ("clips_choice", 3)]
    assert record["failed_requests"] == 3  # one answer and two choices
    assert [reason for path, reason in record["failed_videos"].items() if path.endswith("broken.mp4")]
    assert record["failures"] == {"unreadable video": 3}
    sentence = "3 of 21 questions could not be answered (unreadable video: 3)"
    assert sentence in done.stdout.splitlines()[-1]  # below lmms-eval's table


@pytest.mark.contract
@pytest.mark.parametrize("index", [0, 1])
def test_runs_record_what_ran(both_runs, tasks, index):
    _, _, samples, record = both_runs[index]
    assert record["compressor"].startswith(
        "STGridPool(preset=None, strides=(1, 2, 4)"
    )  # the paper's, but for the window
    assert "kernel_size=3" in record["compressor"]
    assert record["tokens_per_frame"] == 4  # 7x7 patches in windows of 3x3
    assert record["visual_tokens"] == 4 * record["frames"]
    assert record["newline_tokens"] == 2 * record["frames"]
    assert record["num_processes"] == index + 1
    assert [rank["rank"] for rank in record["ranks"]] == list(range(index + 1))
    assert record["requests"] == QUESTIONS
    assert (record["dtype"], record["device"]) == ("float32", "cpu")
    for task in ("clips", "clips_choice"):
        expected = hashlib.sha256((tasks / f"{task}.yaml").read_bytes()).hexdigest()
        assert record["fingerprints"]["tasks"][task] == {f"{task}.yaml": expected}
    assert record["fingerprints"]["frame_indices"] == both_runs[0][3]["fingerprints"]["frame_indices"]
    assert record["versions"]["transformers"] == transformers.__version__  # of the overlay, where there is one
    stages = {"wait_for_video", "decode", "preprocess", "vision", "projector", "compress", "prefill", "generate"}
    assert set(record["seconds"]) == stages
    counts = samples["clips", 0]["token_counts"][0]
    assert (counts["frames"], counts["visual_tokens"], counts["newline_tokens"]) == (5, 20, 10)
    assert counts["compressor"] == record["compressor"]
    if index == 0:
        assert record["videos_encoded"] == 6  # 3 videos, for two kinds of requests


def test_a_run_that_float16_overflows_in_fails_and_keeps_no_answer(run, read_run, checkpoint, tmp_path):
    """The weights are finite in float16, the features of every video are not."""
    folder = shutil.copytree(checkpoint, tmp_path / "overflowing")
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        if "mm_projector" in name:
            weights[name] = weight / weight.abs().max() * 30_000
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    arguments = f"max_frames_num=8,torch_dtype=float16,decode_threads=1,resume_dir={tmp_path / 'journal'}"
    done, output = run("clips", model_args=arguments, pretrained=folder)
    assert done.statuses == [1]
    reasons = "NaN or infinity: 6, unreadable video: 1"
    assert f"the run failed: 7 of 7 questions could not be answered ({reasons})" in done.messages
    assert "NaN or infinity in the projector with torch_dtype=float16: use torch_dtype=bfloat16" in done.messages
    _, samples, record = read_run(output)
    assert {sample["filtered_resps"] for sample in samples.values()} == {""}
    assert (record["requests"], record["failed_requests"]) == (7, 7)
    assert not any(file.read_bytes() for file in (tmp_path / "journal").rglob("*.jsonl"))


def test_a_failure_of_the_aggregation_is_a_failure_of_the_run(run):
    done, output = run("clips_bad_end")
    assert done.statuses == [1]
    assert "the server is down" in done.messages
    assert list(output.glob("*/*_run.json"))


def test_a_run_that_leaves_too_much_unanswered_marks_its_results_and_fails(run):
    """On one process: in test_sweep.py of the scripts."""
    done, output = run("clips", 2, f"{SMALL},max_failed=0.1")
    assert 1 in done.statuses
    sentence = "the run failed: 1 of 7 questions could not be answered (unreadable video: 1), more than max_failed=0.1"
    assert sentence in done.stdout.splitlines()[-1]
    (results,) = output.glob("*/*_results.json")
    marked = json.loads(results.read_text())
    assert marked["run_failed"].startswith(sentence)
    assert marked["unanswered"] == {"questions": 1, "of": 7, "reasons": {"unreadable video": 1}}
    assert "clips" in marked["results"]
    (record,) = output.glob("*/*_run.json")
    assert json.loads(record.read_text())["run_failed"] == marked["run_failed"]
    assert list(output.glob("*/*_samples_clips.jsonl"))


def test_the_response_cache_is_refused_before_anything_is_loaded(evaluate, tmp_path):
    ended = evaluate("clips", use_cache=str(tmp_path))
    assert ended.statuses == [1]
    assert "resume_dir=FOLDER in --model_args instead, or set allow_use_cache=True" in ended.messages[0]
    assert not list(tmp_path.iterdir())


def test_a_failure_of_one_rank_ends_all_and_names_rank_and_document(run):
    done, output = run("clips_bad_document", 2)
    assert any(done.statuses)
    named = r"rank \d, task clips_bad_document, document [0-9, ]*5[0-9, ]*, videos .*mp4.*: ValueError: a prompt of"
    assert re.search(named, done.messages)
    assert not list(output.glob("*/*_results.json"))


def test_a_wrong_argument_ends_the_run_with_a_suggestion(evaluate):
    ended = evaluate("clips", max_frames=8)
    assert ended.statuses == [1]
    assert "no argument 'max_frames', did you mean 'max_frames_num'" in ended.messages[0]


@pytest.mark.contract
def test_a_stock_multiple_choice_task_works_by_name(run, read_run, tmp_path, clips):
    datasets = pytest.importorskip("datasets")
    options = ["A. a red thing", "B. a green thing", "C. grey", "D. blue", "E. none of it"]
    rows = [
        {
            "question_idx": str(row),
            "question": "What is shown?",
            "video_idx": name,
            "option": options,
            "answer": str(row),
        }
        for row, name in enumerate(["v0", "v1", "broken"])
    ]
    folder = tmp_path / "lmms-eval" / "egoschema"  # datasets takes a local folder of the hub's name
    (folder / "Subset").mkdir(parents=True)
    datasets.Dataset.from_list(rows).to_parquet(folder / "Subset" / "test-00000-of-00001.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: Subset\n  data_files:\n  - split: test\n    path: Subset/test-*\n---\n"
    )
    (tmp_path / "hf" / "egoschema").mkdir(parents=True)
    (tmp_path / "hf" / "egoschema" / "videos").symlink_to(clips)
    done, output = run("egoschema_subset_mcppl", cwd=tmp_path, HF_HOME=str(tmp_path / "hf"))
    assert done.statuses == [0], done.messages
    _, samples, record = read_run(output)
    losses = [float(loss) for loss, _ in samples["egoschema_subset_mcppl", 0]["filtered_resps"]]
    assert len(losses) == 5
    best = min(range(5), key=losses.__getitem__)
    assert samples["egoschema_subset_mcppl", 0]["score"]["pred"] == best
    assert samples["egoschema_subset_mcppl", 2]["score"]["pred"] == -1  # unreadable: no choice is taken
    assert record["failed_requests"] == 5
