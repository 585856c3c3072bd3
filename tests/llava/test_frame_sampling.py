"""The two rules by which frames are taken."""

import json

import pytest

from llava.frame_sampling import sample_frames, sample_frames_at_rate


@pytest.mark.parametrize(
    ("num_frames", "rate", "limit", "indices", "times"),
    [
        (75, 25.0, 64, [0, 25, 50], [0.0, 1.0, 2.0]),
        (90, 29.97, 64, [0, 30, 60], [0.0, 1.0, 2.0]),  # nominal seconds
        (100, 25.0, 3, [0, 49, 99], [0.0, 1.96, 3.96]),  # 49.5 is cut down
        (75, 25.0, 3, [0, 25, 50], [0.0, 1.0, 2.0]),  # just at the limit
        (1, 25.0, 64, [0], [0.0]),
        (3, 0.25, 64, [0, 1, 2], [0.0, 4.0, 8.0]),  # one frame in four seconds
    ],
)
def test_sampling_takes_one_frame_a_second_or_spreads_evenly(num_frames, rate, limit, indices, times):
    chosen, at = sample_frames(num_frames, rate, limit)
    assert chosen == indices
    assert at == pytest.approx(times)


def test_forced_sampling_repeats_frames_of_short_videos():
    assert sample_frames(3, 10.0, 5, force_sample=True) == ([0, 0, 1, 1, 2], [0.0, 0.0, 0.1, 0.1, 0.2])
    assert sample_frames(40, 10.0, 8, fps=2)[1] == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5])


def test_sampling_at_a_rate_is_that_of_sttm(golden):
    cases = json.loads((golden / "sttm" / "frame_sampling.json").read_text())
    cases = [case for case in cases if case["kind"] == "llava"]
    assert len(cases) == 60
    for case in cases:
        indices, times = sample_frames_at_rate(case["total"], case["fps"], case["bound"], case["tgt_fps"])
        assert indices == case["indices"]
        stated = ",".join(f"{time:.2f}s" for time in times)
        assert stated.startswith(case["frame_time"].removesuffix("..."))  # the file holds the first 60 characters


def test_the_last_frame_is_taken_and_steps_are_not_rounded():
    assert sample_frames_at_rate(9, 2.5, 64, 1) == ([0, 3, 5, 8], [0.0, 1.2, 2.0, 3.2])  # 2.5 and 7.5 are rounded up
    assert sample_frames_at_rate(2, 1.0, 64, 2)[0] == [0, 1]  # 0.5 is rounded up
    assert sample_frames_at_rate(3, 1.0, 64, 2)[0] == [0, 1, 1, 2]  # frames repeat: 0, 0.5, 1, 1.5


@pytest.mark.parametrize("sample", [sample_frames, sample_frames_at_rate])
def test_options_out_of_range_are_refused(sample):
    with pytest.raises(ValueError, match="max_frames_num must be at least 1, got 0"):
        sample(9, 2.0, 0, 1)
    with pytest.raises(ValueError, match="fps must be above 0, got 0"):
        sample(9, 2.0, 1, 0)
