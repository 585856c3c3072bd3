"""A long run needs no more memory than a short one."""

import pytest


@pytest.mark.slow
def test_thirty_videos_take_as_much_memory_as_three(evaluate):
    videos = {"max_frames_num": 32, "force_sample": True}  # 3.7 MB of pixels each
    few, many = (evaluate("many_videos", limit=questions, **videos) for questions in (3, 30))
    assert (few.statuses, many.statuses) == ([0], [0])
    assert len(many.samples) == 30
    assert many.peak < 1.05 * few.peak
