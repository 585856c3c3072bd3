"""A whole run of `video_hf` through lmms-eval's command line, on two processes as accelerate starts them."""

import json

import pytest

from native_models.families import save

pytestmark = pytest.mark.slow


def test_two_processes_answer_every_question_once(tmp_path, tasks, start_programs, environments_of_ranks):
    checkpoint = save("qwen2_5_vl", tmp_path / "checkpoint")
    command = ["-m", "lmms_eval", "--model", "video_hf", "--batch_size", "1", "--tasks", "clips"]
    command += ["--include_path", tasks, "--output_path", tmp_path / "output", "--log_samples"]
    command += ["--model_args", f"pretrained={checkpoint},compressor=vidcom2,torch_dtype=float32,decode_threads=1"]
    started = start_programs(command, command, cwd=tmp_path, environments=environments_of_ranks(2))
    statuses = started.wait().statuses
    assert statuses == [0, 0], "".join(path.read_text() for logs in started.logs for path in logs)
    (record,) = (tmp_path / "output").glob("*/*_run.json")
    record = json.loads(record.read_text())
    assert (record["model"], record["family"], record["num_processes"]) == ("video_hf", "qwen2_5_vl", 2)
    assert (record["requests"], record["failures"]) == (7, {"unreadable video": 1})
    assert record["videos_encoded"] == 3  # one rank answers all questions about a video
    (samples,) = (tmp_path / "output").glob("*/*_samples_clips.jsonl")
    facts = [json.loads(line)["token_counts"][0] for line in samples.open()]
    # A clip of 8 frames per second gives every fourth; a token is 8x8 of 48x64 pixels of two frames; a quarter remains.
    assert sorted({(one["frames"], one["visual_tokens"]) for one in facts if not one["failed"]}) == [
        (10, 60),
        (14, 84),
        (24, 144),
    ]
