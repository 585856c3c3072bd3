"""A long run needs no more memory than a short one."""

import pytest


@pytest.mark.slow
def test_600_questions_take_as_much_memory_as_60(evaluate):
    videos = {"max_frames_num": 32, "force_sample": True}  # 3.7 MB of pixels each
    few, many = (evaluate("many_videos", limit=questions, **videos) for questions in (60, 600))
    assert (few.statuses, many.statuses) == ([0], [0])
    assert len(many.samples) == 600
    assert many.peak < 1.05 * few.peak
