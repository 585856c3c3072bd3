"""Which rank answers which questions, and in which order.

lmms-eval scatters questions over the ranks one by one, those about one video too: every rank would then decode, encode
and prefill it. `deal` gives each video to one rank, the most work first, each time to the rank with the least so far.
Every rank works out the same schedule from what all of them were asked. Within a rank, questions about one video follow
each other, and are answered as batches.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from lmms_eval_stgridpool.questions.requests import Request

QUESTION_COST = 30
"""What answering a question counts beside decoding, in frames of 1280x720 decoded."""
VIDEO_COST = 120
"""What encoding and prefilling a video counts, in the same unit."""
FRAMES_PER_SEEK = 125
"""Most frames decoded for one that is sampled: half of a usual distance between key frames."""
BYTES_PER_FRAME = 10_000
"""Bytes of a file that count as one frame of 1280x720: 2.4 Mbit/s at 30 frames a second, as H.264 is often stored."""


@dataclass(frozen=True)
class Job:
    """A question on its way to the rank that answers it.

    Attributes:
        owner: The rank that was asked.
        request: The question; `position` is its place in the owner's list.
        name: Its name in the journal.
        videos: Paths of its videos, or None.
        decoding: What decoding them costs, see `decoding_work`.
    """

    owner: int
    request: Request
    name: str
    videos: tuple[str, ...] | None
    decoding: float


def deal(jobs: Sequence[Job], known_tasks: Sequence[Set[str]]) -> list[int]:
    """Assign each question to a rank: the same one for all questions of a task about a video.

    The most work is assigned first, each time to the rank that has the least so far; every rank that is given the same
    questions works out the same. Tasks that the same ranks know share their videos.

    Args:
        jobs: What all ranks were asked.
        known_tasks: Tasks that each rank knows, at least those that it was asked; it gets no questions of others.

    Returns:
        The rank of each question, in the order of `jobs`.
    """
    groups: dict[Any, list[int]] = {}
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
    """What the questions about the same videos count, in frames of 1280x720 decoded."""
    videos = max(len(job.videos or ()) for job in jobs)
    return max(job.decoding for job in jobs) + VIDEO_COST * videos + QUESTION_COST * len(jobs)


def in_batches(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    """Neighbours that ask for text about the same video, at most `size` of them together; all others one by one."""
    for (_, videos), group in groupby(jobs, key=lambda job: (job.request.task, job.videos)):
        members = list(group)
        is_batch = videos is not None and len(videos) == 1 and members[0].request.kind == "generate_until"
        step = size if is_batch else 1
        for start in range(0, len(members), step):
            yield members[start : start + step]


def decoding_work(path: str, max_frames_num: int) -> float:
    """Estimate what decoding a video costs, in frames of 1280x720, from the size of its file alone.

    No rank opens a file that may be foreign: that is left to the reading processes, which have limits. Larger pictures
    and more of them both take more bytes. A folder of pictures, and what is missing, counts nothing.

    Args:
        path: The file.
        max_frames_num: Most frames that are sampled from it.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return 0.0  # the reader will say what is wrong
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    return min(size / BYTES_PER_FRAME, max_frames_num * FRAMES_PER_SEEK)


def in_video_order(keys: Sequence[Any]) -> list[int]:
    """Positions such that equal keys follow each other; otherwise in the order given. A key of None equals nothing."""
    first: dict[Any, int] = {}
    for position, key in enumerate(keys):
        if key is not None:
            first.setdefault(key, position)
    return sorted(range(len(keys)), key=lambda position: (first.get(keys[position], position), position))


def videos_in_order(keys: Iterable[tuple[str, ...] | None]) -> list[Path]:
    """The videos that are needed for questions with these keys; neighbours with one key need theirs once."""
    return [Path(video) for key, _ in groupby(keys) for video in key or ()]
