"""One whole run through lmms-eval's command line: the EgoSchema submission file is written, and nothing is posted."""

import json

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(run_offline, parquet_folder, custom_tasks):
    arguments = ["-m", "lmms_eval", "--model", "dummy", "--model_args", "response=B", "--tasks", "egoschema_submission"]
    arguments += ["--include_path", custom_tasks, "--output_path", parquet_folder / "logs", "--log_samples"]
    done = run_offline(arguments, parquet_folder)
    assert done.status == 0, done.output[-4000:]
    return done


def test_submission_file_holds_every_answer(done, parquet_folder):
    (path,) = (parquet_folder / "logs" / "submissions").glob("inference_results_egoschema_MC_*.json")
    assert json.loads(path.read_text()) == {"v0": 1, "v1": 1, "v2": 1, "v3": 1}
    assert f"python submit_egoschema.py --f {path}" in done.output


def test_nothing_is_posted(done):
    assert done.hosts == []


def test_results_and_samples_are_written(done, parquet_folder):
    (results,) = (parquet_folder / "logs").rglob("*_results.json")
    assert json.loads(results.read_text())["results"]["egoschema_submission"]["answers_in_submission,none"] == 4.0
    (samples,) = (parquet_folder / "logs").rglob("*_samples_egoschema_submission.jsonl")
    assert len(samples.read_text().splitlines()) == 4
