"""Whole runs of lmms-eval, on one and on two processes."""

import json
import os
import re
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

NAMES = ["v0.mp4", "v1.mp4", "v0.mp4", "broken.mp4", "v1.mp4", "v0.mp4", "v2.mp4"]  # 7: uneven on two processes
TASK = """
dataset_path: json
dataset_kwargs: {data_files: {test: questions.json}}
test_split: test
doc_to_visual: !function functions.visuals
doc_to_text: !function functions.text
"""
GENERATION = """
task: clips
output_type: generate_until
doc_to_target: answer
generation_kwargs: {max_new_tokens: 6}
process_results: !function functions.process
metric_list: [{metric: length, aggregation: mean, higher_is_better: true}]
"""
CHOICE = """
task: clips_choice
output_type: multiple_choice
doc_to_choice: !function functions.choices
doc_to_target: gold
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
FAILS_AT_THE_END = """
task: clips_bad_end
output_type: generate_until
doc_to_target: answer
generation_kwargs: {max_new_tokens: 1}
process_results: !function functions.process
metric_list: [{metric: length, aggregation: !function functions.fail, higher_is_better: true}]
"""
FAILS_ON_ONE_DOCUMENT = """
task: clips_bad_document
output_type: generate_until
doc_to_text: !function functions.bad_text
doc_to_target: answer
generation_kwargs: {max_new_tokens: 1}
process_results: !function functions.process
metric_list: [{metric: length, aggregation: mean, higher_is_better: true}]
"""
FUNCTIONS = """
from pathlib import Path

def visuals(doc): return [str(Path(__file__).parent / "videos" / doc["video"])]
def text(doc): return doc["question"]
def bad_text(doc): return doc["question"] + ("<image> or <image>?" if doc["question"].startswith("5") else "")
def choices(doc): return ["red", "a green thing"]
def process(doc, results): return {"length": float(len(results[0]))}
def fail(results): raise ConnectionError("the server is down")
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, clips):
    """Folder of task files for --include_path, with their questions and videos."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "videos").symlink_to(clips)
    rows = [
        {"video": name, "question": f"{row} What is shown?", "answer": "", "gold": 1} for row, name in enumerate(NAMES)
    ]
    (folder / "questions.json").write_text("\n".join(map(json.dumps, rows)))
    (folder / "functions.py").write_text(FUNCTIONS)
    for name, text in {"a": GENERATION, "b": CHOICE, "c": FAILS_AT_THE_END, "d": FAILS_ON_ONE_DOCUMENT}.items():
        base = TASK.replace("doc_to_text: !function functions.text\n", "") if "doc_to_text" in text else TASK
        (folder / f"{name}.yaml").write_text(base + text)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, checkpoint, tasks):
    """Function that runs lmms-eval and returns the finished process and the folder of its output."""

    def run(*options, task, num_processes=1, model_args="max_frames_num=8,torch_dtype=float32", cwd=None):
        output = tmp_path_factory.mktemp("output")
        launch = [sys.executable, "-m"]
        if num_processes > 1:
            launch += ["accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"]
            launch += [
                "--dynamo_backend",
                "no",
                "--num_processes",
                str(num_processes),
                "--main_process_port",
                "0",
                "-m",
            ]
        environment = os.environ | {
            "ACCELERATE_USE_CPU": "true",
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(output / "hf"),
            "OMP_NUM_THREADS": "1",
        }
        environment.update(option.split("=") for option in options if option.startswith("HF_HOME="))
        command = [*launch, "lmms_eval", "--model", "llava_video", "--batch_size", "1", "--tasks", task]
        command += ["--model_args", f"pretrained={checkpoint},{model_args}", "--include_path", str(tasks)]
        command += ["--log_samples", "--output_path", str(output)]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=environment, cwd=cwd or output, timeout=300
        )
        return done, output

    return run


def read_run(folder):
    """Scores, samples by task and document, and the record of the run."""
    (results,) = folder.glob("*/*_results.json")
    (record,) = folder.glob("*/*_run.json")
    assert record.name.removesuffix("_run.json") == results.name.removesuffix("_results.json")
    samples = {}
    for file in folder.glob("*/*_samples_*.jsonl"):
        for line in file.read_text().splitlines():
            sample = json.loads(line)
            samples[file.name.split("_samples_")[1], sample["doc_id"]] = sample
    return json.loads(results.read_text())["results"], samples, json.loads(record.read_text())


@pytest.fixture(scope="module")
def both_runs(run):
    """The same two tasks on one and on two processes, with options that hold commas."""
    model_args = 'max_frames_num=8,compressor_args={"preset":"paper","kernel_size":3}'
    runs = []
    for num_processes in (1, 2):
        done, output = run(task="clips,clips_choice", num_processes=num_processes, model_args=model_args)
        assert done.returncode == 0, done.stdout + done.stderr
        runs.append((done, *read_run(output)))
    return runs


def without_times(sample):
    counts = [{key: value for key, value in count.items() if key != "seconds"} for count in sample["token_counts"]]
    return sample | {"token_counts": counts}


def test_one_and_two_processes_give_the_same_scores_and_samples(both_runs):
    (_, scores, samples, _), (_, scores_of_two, samples_of_two, _) = both_runs
    assert scores == scores_of_two
    assert len(samples) == 2 * len(NAMES)
    assert {key: without_times(sample) for key, sample in samples.items()} == {
        key: without_times(sample) for key, sample in samples_of_two.items()
    }


@pytest.mark.parametrize("index", [0, 1])
def test_unreadable_videos_are_marked_counted_and_reported(both_runs, index):
    done, _, samples, record = both_runs[index]
    sample = samples["clips.jsonl", 3]
    assert sample["filtered_resps"] == ""
    assert sample["token_counts"][0]["failed"] is True
    assert "broken.mp4: Invalid data found" in sample["token_counts"][0]["failure"]
    failed = [key for key, sample in samples.items() if any(count["failed"] for count in sample["token_counts"])]
    assert sorted(failed) == [("clips.jsonl", 3), ("clips_choice.jsonl", 3)]
    assert record["failed_requests"] == 3  # one answer and two choices
    assert [reason for path, reason in record["failed_videos"].items() if path.endswith("broken.mp4")]
    assert "3 of 21 questions have no answer: 1 unreadable videos" in done.stdout


@pytest.mark.parametrize("index", [0, 1])
def test_runs_record_what_ran(both_runs, index):
    _, _, samples, record = both_runs[index]
    assert record["compressor"].startswith("STGridPool(preset='paper'")
    assert "kernel_size=3" in record["compressor"]
    assert record["tokens_per_frame"] == 4  # 7x7 patches in windows of 3x3
    assert record["visual_tokens"] == 4 * record["frames"]
    assert record["newline_tokens"] == 2 * record["frames"]
    assert record["num_processes"] == index + 1
    assert [rank["rank"] for rank in record["ranks"]] == list(range(index + 1))
    assert record["requests"] == 21
    assert (record["dtype"], record["device"]) == ("float32", "cpu")
    stages = {"wait_for_video", "decode", "preprocess", "vision", "projector", "compress", "prefill", "generate"}
    assert set(record["seconds"]) == stages
    counts = samples["clips.jsonl", 0]["token_counts"][0]
    assert (counts["frames"], counts["visual_tokens"], counts["newline_tokens"]) == (5, 20, 10)
    assert counts["compressor"] == record["compressor"]
    if index == 0:
        assert record["videos_encoded"] == 6  # 3 videos, for two kinds of requests


def test_a_failure_of_the_aggregation_is_a_failure_of_the_run(run):
    done, output = run(task="clips_bad_end")
    assert done.returncode == 1
    assert "the server is down" in done.stdout + done.stderr
    assert list(output.glob("*/*_run.json"))


def test_a_failure_of_one_rank_ends_all_and_names_rank_and_document(run):
    started = time.monotonic()
    done, output = run(task="clips_bad_document", num_processes=2)
    assert done.returncode != 0
    named = r"rank \d, task clips_bad_document, document [0-9, ]*5[0-9, ]*, videos .*mp4.*: ValueError: the question"
    assert re.search(named, done.stdout)
    assert not list(output.glob("*/*_results.json"))
    assert time.monotonic() - started < 100


def test_a_wrong_argument_ends_the_run_with_a_suggestion(run):
    done, _ = run(task="clips", model_args="max_frames=8")
    assert done.returncode == 1
    assert "no argument 'max_frames', did you mean 'max_frames_num'" in done.stdout


def test_a_stock_multiple_choice_task_works_by_name(run, tmp_path, clips):
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
    done, output = run(f"HF_HOME={tmp_path / 'hf'}", task="egoschema_subset_mcppl", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    _, samples, record = read_run(output)
    losses = [float(loss) for loss, _ in samples["egoschema_subset_mcppl.jsonl", 0]["filtered_resps"]]
    assert len(losses) == 5
    best = min(range(5), key=losses.__getitem__)
    assert samples["egoschema_subset_mcppl.jsonl", 0]["score"]["pred"] == best
    assert samples["egoschema_subset_mcppl.jsonl", 2]["score"]["pred"] == -1  # unreadable: no choice is taken
    assert record["failed_requests"] == 5
