"""The schedule: which rank answers which questions, and in which order.

lmms-eval scatters questions over the ranks one by one. Questions about one video end up on several ranks, and each of
these would decode, encode and prefill it. `assign_ranks` instead assigns each video to one rank: the longest first, to
the rank with the least work so far. Every rank computes the same schedule from the questions of all ranks. Within a
rank, questions about one video are consecutive, and are answered in batches.
"""

import os
import stat
from collections.abc import Hashable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from lmms_eval_stgridpool.questions.requests import Request

QUESTION_COST = 30
"""Cost of answering a question, without decoding; the unit is decoding one frame of 1280x720."""
VIDEO_COST = 120
"""Cost of encoding and prefilling a video, in the same unit."""
FRAMES_PER_SEEK = 125
"""Maximum number of frames decoded per sampled frame: half the usual distance between key frames."""
BYTES_PER_FRAME = 10_000
"""File size that counts as one frame of 1280x720: 2.4 Mbit/s at 30 frames per second, which is usual for H.264."""


@dataclass(frozen=True)
class Job:
    """A question on its way to the rank that answers it.

    Attributes:
        owner: The rank that was asked.
        request: The question; `position` is its position in the owner's list.
        name: Its name in the journal.
        videos: Paths of its videos, or None.
        decoding: Cost of decoding them, see `decoding_work`.
    """

    owner: int
    request: Request
    name: str
    videos: tuple[str, ...] | None
    decoding: float


def assign_ranks(jobs: Sequence[Job], known_tasks: Sequence[Set[str]]) -> list[int]:
    """Assign each question to a rank, and all questions of a task about one video to the same rank.

    The videos with the most work are assigned first, each to the rank with the least work so far. The result depends on
    the arguments only, so all ranks compute the same. If several tasks are known to the same ranks, they share videos.

    Args:
        jobs: The questions of all ranks.
        known_tasks: The tasks that each rank knows, among them those that it was asked; it gets no other questions.

    Returns:
        The rank of each question, in the order of `jobs`.
    """
    groups: dict[tuple[tuple[int, ...], Hashable], list[int]] = {}
    for index, job in enumerate(jobs):
        able = tuple(rank for rank, tasks in enumerate(known_tasks) if job.request.task in tasks)
        groups.setdefault((able, index if job.videos is None else job.videos), []).append(index)
    work = {key: _work([jobs[index] for index in group]) for key, group in groups.items()}
    ranks, load = [0] * len(jobs), [0.0] * len(known_tasks)
    for key in sorted(groups, key=lambda key: (-work[key], groups[key][0])):
        able, _ = key
        rank = min(able, key=load.__getitem__)
        load[rank] += work[key]
        for index in groups[key]:
            ranks[index] = rank
    return ranks


def _work(jobs: Sequence[Job]) -> float:
    """Estimate the cost of all questions about the same videos; the unit is decoding one frame of 1280x720."""
    videos = max(len(job.videos or ()) for job in jobs)
    return max(job.decoding for job in jobs) + VIDEO_COST * videos + QUESTION_COST * len(jobs)


def in_batches(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    """Yield batches of at most `size` consecutive questions that ask for text about one video; others one by one."""
    for (_, videos), group in groupby(jobs, key=lambda job: (job.request.task, job.videos)):
        members = list(group)
        is_batch = videos is not None and len(videos) == 1 and members[0].request.kind == "generate_until"
        step = size if is_batch else 1
        for start in range(0, len(members), step):
            yield members[start : start + step]


def decoding_work(path: str, max_frames_num: int | None) -> float:
    """Estimate the cost of decoding a video from the size of its file; the unit is decoding one frame of 1280x720.

    No rank opens the file, because it may be malicious: only the reading processes do, which have limits. Both larger
    and more frames take more bytes. A folder of pictures or a missing file costs nothing.

    Args:
        path: The file.
        max_frames_num: Maximum number of frames sampled from it; None if there is no limit.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return 0.0  # the reader will report the error
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    frames = size / BYTES_PER_FRAME
    return frames if max_frames_num is None else min(frames, max_frames_num * FRAMES_PER_SEEK)


def in_video_order(jobs: Sequence[Job]) -> list[Job]:
    """Move questions about the same videos after the first of them; otherwise the given order stays."""
    first: dict[tuple[str, ...], int] = {}
    for position, job in enumerate(jobs):
        if job.videos is not None:
            first.setdefault(job.videos, position)
    order = sorted(range(len(jobs)), key=lambda position: (first.get(jobs[position].videos or (), position), position))
    return [jobs[position] for position in order]


def videos_in_order(jobs: Iterable[Job]) -> list[Path]:
    """List the videos that questions need, in order; consecutive questions about the same videos need them once."""
    return [Path(video) for key, _ in groupby(job.videos for job in jobs) for video in key or ()]
