"""Questions change places between processes, so that one process answers all questions about a video.

lmms-eval deals questions out one by one, which scatters those about one video over all processes: each of them would
decode, encode and prefill it. Here every process tells the others what it was asked; all of them work out the same
deal, videos that take longest first, each to the process with the least to do; and the answers go back to the process,
and to the place in its list, that asked.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import av
from accelerate.utils import gather_object

from lmms_eval_stgridpool.requests import Request

QUESTION_COST = 30
"""What answering a question counts beside decoding, in frames decoded."""


@dataclass(frozen=True)
class Job:
    """A question on its way to the process that answers it.

    Attributes:
        owner: The process that was asked.
        request: The question; `position` is its place in the owner's list.
        name: Its name in the journal.
        videos: Paths of its videos, or None.
        frames: Frames in those videos, as far as the files say.
    """

    owner: int
    request: Request
    name: str
    videos: tuple[str, ...] | None
    frames: int


def trade(jobs: Sequence[Job], known_tasks: Iterable[str], rank: int, world_size: int) -> list[Job]:
    """The questions that this process answers, from those that all processes were asked. Every process must call it.

    Args:
        jobs: What this process was asked.
        known_tasks: Tasks whose functions this process has; questions of a task that some process does not know stay
            where they are.
        rank: Number of this process.
        world_size: Number of processes.
    """
    gathered = gather_object([(list(jobs), set(known_tasks))])
    everything = [job for others, _ in gathered for job in others]
    common = set.intersection(*(tasks for _, tasks in gathered))
    movable = [job for job in everything if job.request.task in common]
    dealt = deal(movable, world_size)
    stay = [job for job in everything if job.request.task not in common and job.owner == rank]
    return [job for job, process in zip(movable, dealt, strict=True) if process == rank] + stay


def give_back(answers: Sequence[tuple[Job, Any]], rank: int) -> list[tuple[Job, Any]]:
    """The answers to what this process was asked, from those that all processes found. Every process must call it."""
    gathered = gather_object([list(answers)])
    return [(job, answer) for found in gathered for job, answer in found if job.owner == rank]


def deal(jobs: Sequence[Job], world_size: int) -> list[int]:
    """The process that answers each question: the same for all questions about a video.

    The most work goes first, each time to the process that has the least so far; the same questions are dealt in the
    same way on every process.
    """
    groups: dict[Any, list[int]] = {}
    for index, job in enumerate(jobs):
        groups.setdefault(index if job.videos is None else job.videos, []).append(index)
    work = {
        key: max(jobs[index].frames for index in group) + QUESTION_COST * len(group) for key, group in groups.items()
    }
    processes, load = [0] * len(jobs), [0] * world_size
    for key in sorted(groups, key=lambda key: (-work[key], groups[key][0])):
        process = load.index(min(load))
        load[process] += work[key]
        for index in groups[key]:
            processes[index] = process
    return processes


def in_batches(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    """Neighbours that ask for text about the same video, at most `size` of them together; all others one by one."""
    for (_, videos), group in groupby(jobs, key=lambda job: (job.request.task, job.videos)):
        members = list(group)
        is_batch = videos is not None and len(videos) == 1 and members[0].request.kind == "generate_until"
        step = size if is_batch else 1
        for start in range(0, len(members), step):
            yield members[start : start + step]


def declared_frames(path: str) -> int:
    """Frames in a video, as its header says; 0 where it says nothing or cannot be read."""
    try:
        container = av.open(path)
    except (av.FFmpegError, OSError):
        return 0
    with closing(container):
        if not container.streams.video:
            return 0
        stream = container.streams.video[0]
        seconds = (container.duration or 0) / av.time_base
        return stream.frames or int(seconds * float(stream.average_rate or 0))
