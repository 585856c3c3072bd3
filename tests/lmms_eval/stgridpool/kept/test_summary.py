"""The lines at the end of a run."""

from lmms_eval_stgridpool.kept.record import RankSums, run_record
from lmms_eval_stgridpool.kept.sample_facts import SampleFacts
from lmms_eval_stgridpool.kept.summary import summary

SETUP = {"compressor": "NSP()"}


def test_a_run_is_summed_up_in_a_line_each():
    sums = RankSums(0)
    sums.add_videos(2, 10, 90, 30)  # 5 frames, 45 tokens and 15 newlines a video
    facts = SampleFacts(compressor="NSP()", kept_tokens={"last_layer": 45}, full_tokens=80, full_newlines=20)
    sums.add_answer(facts)
    sums.add_resumed(facts)
    sums.add_resumed(facts)
    assert summary(run_record(SETUP, [sums], 1.0)) == [
        "compressor: NSP()",
        "frames: 10 of 2 videos, 5.0 per video",
        "tokens: 45.0 visual and 15.0 newline tokens per video; 56.2 % of the checkpoint's own in the last layer",
        "resumed answers: 2 of 3",
    ]


def test_a_run_that_resumes_every_answer_encodes_nothing():
    sums = RankSums(0)
    sums.add_resumed(SampleFacts(compressor="NSP()"))
    assert summary(run_record(SETUP, [sums], 1.0)) == [
        "compressor: NSP()",
        "frames: none, as no video was encoded",
        "tokens: none",
        "resumed answers: 1 of 1",
    ]


def test_a_compressor_that_did_not_act_is_not_named():
    sums = RankSums(0)
    sums.add_answer(SampleFacts())
    assert summary(run_record(SETUP, [sums], 1.0))[0] == "compressor: none acted, as no video was shown"
