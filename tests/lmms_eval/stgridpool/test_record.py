import json
import os

import pytest

from lmms_eval_stgridpool.record import (
    RankSums,
    SampleFacts,
    rename_beside_results,
    run_record,
    write_record,
)


def test_a_samples_facts_hold_what_follows_from_them():
    facts = SampleFacts(
        input_tokens=100, frames=8, visual_tokens=72, newline_tokens=24, compressor="x", seconds={"decode": 1.5}
    )
    written = facts.to_dict()
    assert written["tokens_per_frame"] == 9.0
    assert written["failed"] is False
    assert written["seconds"] == {"decode": 1.5}
    assert SampleFacts(failure="cannot read").to_dict()["failed"] is True
    assert SampleFacts().to_dict()["tokens_per_frame"] is None


def test_the_record_sums_over_answers_videos_and_ranks():
    first, second = RankSums(0), RankSums(1)
    first.add_videos(1, 8, 72, 24)
    first.add_answer(SampleFacts(output_tokens=3, seconds={"decode": 1.0, "prefill": 2.0}))
    first.add_answer(SampleFacts(output_tokens=2, seconds={"prefill": 1.0}))
    second.add_videos(2, 12, 108, 36)
    second.add_answer(SampleFacts(failure="x"))
    second.failed_videos["b.mp4"] = "no frames"
    record = run_record({"compressor": "C()"}, [first, second], 9.0)
    assert record["compressor"] == "C()"
    assert (record["requests"], record["failed_requests"]) == (3, 1)
    assert record["failed_videos"] == {"b.mp4": "no frames"}
    assert (record["videos_encoded"], record["frames"], record["visual_tokens"], record["newline_tokens"]) == (
        3,
        20,
        180,
        60,
    )
    assert (record["tokens_per_frame"], record["tokens_per_video"]) == (9.0, 60.0)
    assert record["output_tokens"] == 5
    assert record["seconds"] == {"decode": 1.0, "prefill": 3.0}
    assert [rank["requests"] for rank in record["ranks"]] == [2, 1]
    assert record["versions"]["lmms_eval"]
    json.dumps(record)


def test_a_run_without_videos_has_no_tokens_per_frame():
    record = run_record({}, [RankSums(0)], 1.0)
    assert record["tokens_per_frame"] is None
    assert record["tokens_per_video"] is None


@pytest.fixture
def not_at_exit(monkeypatch):
    registered = []
    monkeypatch.setattr("atexit.register", lambda *call: registered.append(call))
    return registered


def test_the_record_gets_the_time_of_its_results(tmp_path, not_at_exit):
    def results(name, model_args, age):
        path = tmp_path / f"{name}_results.json"
        path.write_text(json.dumps({"config": {"model_args": model_args}}))
        os.utime(path, (record.stat().st_mtime + age,) * 2)

    record = write_record({"frames": 8}, tmp_path, "pretrained=x")
    assert not_at_exit == [(rename_beside_results, record, "pretrained=x")]
    results("20260101_000000", "pretrained=x", -60)
    results("20260101_000001", "pretrained=y", 1)
    assert rename_beside_results(record, "pretrained=x") == record
    results("20260101_000002", "pretrained=x", 2)
    renamed = rename_beside_results(record, "pretrained=x")
    assert renamed == tmp_path / "20260101_000002_run.json"
    assert json.loads(renamed.read_text()) == {"frames": 8}
