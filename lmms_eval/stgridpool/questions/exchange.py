"""Questions change places between processes, so that one process answers all questions about a video.

lmms-eval deals questions out one by one, which scatters those about one video over all processes: each of them would
decode, encode and prefill it. Here every process tells the others what it was asked; all of them work out the same
deal, videos that take longest first, each to the process with the least to do; and the answers go back to the process,
and to the place in its list, that asked.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any

from torch import distributed

from lmms_eval_stgridpool.questions.rank_progress import RankProgress
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
    """A question on its way to the process that answers it.

    Attributes:
        owner: The process that was asked.
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


class Exchange:
    """Carries questions, answers and counts between the processes of a run.

    They go over the hosts' network even where the accelerators have another one. Before ranks exchange anything they
    wait for each other, see `RankProgress`. Every rank must make one exchange, and must then call the same methods in
    the same order, except `report`.

    Args:
        rank: Number of this process.
        world_size: Number of processes.
        timeout: How long to wait for a rank that reports nothing.
    """

    def __init__(self, rank: int, world_size: int, timeout: timedelta) -> None:
        self._rank, self._world_size = rank, world_size
        self._group: Any = None
        self._progress: RankProgress | None = None
        if world_size > 1:
            self._group = distributed.new_group(backend="gloo")
            self._progress = RankProgress(rank, world_size, timeout)

    def report(self, done: str) -> None:
        """Tell the ranks that wait for this one what it has done; to be called after every piece of work."""
        if self._progress is not None:
            self._progress.report(done)

    def gather(self, value: Any) -> list[Any]:
        """What every process has, in the order of their numbers.

        Raises:
            RuntimeError: If a rank ends, or reports nothing for longer than the timeout.
        """
        if self._progress is None:
            return [value]
        self._progress.meet()
        values = [None] * self._world_size
        distributed.all_gather_object(values, value, group=self._group)
        return values

    def trade(self, jobs: Sequence[Job], known_tasks: Iterable[str]) -> list[Job]:
        """The questions that this process answers, from those that all processes were asked.

        Args:
            jobs: What this process was asked.
            known_tasks: Tasks whose functions this process has.
        """
        gathered = self.gather((list(jobs), set(known_tasks)))
        everything = [job for others, _ in gathered for job in others]
        dealt = deal(everything, [tasks for _, tasks in gathered])
        return [job for job, process in zip(everything, dealt, strict=True) if process == self._rank]

    def give_back(self, answers: Sequence[tuple[Job, Any]]) -> list[tuple[Job, Any]]:
        """The answers to what this process was asked, from those that all processes found."""
        gathered = self.gather(list(answers))
        return [(job, answer) for found in gathered for job, answer in found if job.owner == self._rank]


def deal(jobs: Sequence[Job], known_tasks: Sequence[Set[str]]) -> list[int]:
    """The process that answers each question: the same for all questions of a task about a video.

    The most work goes first, each time to the process that has the least so far; the same questions are dealt in the
    same way on every process. Tasks that the same processes know share their videos.

    Args:
        jobs: What all processes were asked.
        known_tasks: Tasks that each process knows, at least those that it was asked; it gets no questions of others.
    """
    groups: dict[Any, list[int]] = {}
    for index, job in enumerate(jobs):
        able = tuple(process for process, tasks in enumerate(known_tasks) if job.request.task in tasks)
        groups.setdefault((able, index if job.videos is None else job.videos), []).append(index)
    work = {key: _work([jobs[index] for index in group]) for key, group in groups.items()}
    processes, load = [0] * len(jobs), [0.0] * len(known_tasks)
    for key in sorted(groups, key=lambda key: (-work[key], groups[key][0])):
        able, _ = key
        process = min(able, key=load.__getitem__)
        load[process] += work[key]
        for index in groups[key]:
            processes[index] = process
    return processes


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
