import hashlib
import json
import os

import pytest

from llava.video import VideoReadError
from lmms_eval_stgridpool.kept.record import RankSums, run_record
from lmms_eval_stgridpool.kept.sample_facts import SampleFacts
from lmms_eval_stgridpool.run.unanswered import NOTHING_SHOWN, UnansweredError


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
    first.add_answer(SampleFacts(compressor="C()", output_tokens=3, seconds={"decode": 1.0, "prefill": 2.0}))
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


def test_unanswered_questions_are_counted_by_reason():
    first, second = RankSums(0), RankSums(1)
    first.add_failures(VideoReadError("a.mp4", "no frames"), 3)
    second.add_failures(VideoReadError("b.mp4", "no frames"), 1)
    second.add_failures(UnansweredError(NOTHING_SHOWN, "task quiz, document 3: no video"), 2)
    record = run_record({}, [first, second], 1.0)
    assert record["failures"] == {"unreadable video": 4, "nothing shown": 2}
    assert record["failed_videos"] == {"a.mp4": "no frames", "b.mp4": "no frames"}


@pytest.mark.parametrize(
    ("answers", "resumed", "compressor"),
    [
        ([SampleFacts()], [], None),  # from images or text
        ([SampleFacts(), SampleFacts(failure="x")], [], None),
        ([SampleFacts(compressor="C()", frames=8), SampleFacts()], [], "C()"),
        ([SampleFacts()], [SampleFacts(compressor="C()", frames=8)], "C()"),
        ([SampleFacts(failure="x")], [], "C()"),  # nothing says that it would not have compressed
    ],
)
def test_a_compressor_that_compressed_nothing_is_not_recorded(answers, resumed, compressor):
    sums = RankSums(0)
    for facts in answers:
        sums.add_answer(facts)
    for facts in resumed:
        sums.add_resumed(facts)
    assert run_record({"compressor": "C()"}, [sums], 1.0)["compressor"] == compressor


def test_a_video_whose_name_is_not_utf_8_can_be_recorded():
    sums = RankSums(0)
    sums.add_failures(VideoReadError(os.fsdecode(b"caf\xe9.mp4"), "no such file"), 1)
    written = json.dumps(run_record({}, [sums], 1.0), ensure_ascii=False).encode()
    assert json.loads(written)["failed_videos"] == {r"caf\xe9.mp4": "no such file"}


def test_damaged_videos_are_named_and_their_answers_counted_also_after_resuming():
    first, second = RankSums(0), RankSums(1)
    first.add_answer(SampleFacts(damaged_videos={"a.mp4": 2}))
    first.add_answer(SampleFacts())
    second.add_resumed(SampleFacts.from_dict({"damaged_videos": {"b.mp4": 1}}))
    record = run_record({}, [first, second], 1.0)
    assert record["damaged_requests"] == 2
    assert record["damaged_videos"] == {"a.mp4": 2, "b.mp4": 1}


def test_the_frames_of_all_answers_have_one_digest_in_whatever_order_they_are_answered():
    def digest(*ranks):
        parts = []
        for number, (answered, resumed) in enumerate(ranks):
            parts.append(RankSums(number))
            for name in answered:
                parts[-1].add_answer(SampleFacts(frames_sha256=name))
            for name in resumed:
                parts[-1].add_resumed(SampleFacts(frames_sha256=name))
        record = run_record({}, parts, 1.0, {"tasks": {"quiz": {"quiz.yaml": "1f"}}})
        json.dumps(record)
        assert record["fingerprints"]["tasks"] == {"quiz": {"quiz.yaml": "1f"}}
        return record["fingerprints"]["frame_indices"]

    one = digest((["a", "b", ""], []))
    assert one == hashlib.sha256(b'{"frames": ["a", "b"]}').hexdigest()
    assert one == digest((["b"], []), ([], ["a", "a"]))
    assert one != digest((["a", "c"], []))
    assert one != digest((["a"], []))
