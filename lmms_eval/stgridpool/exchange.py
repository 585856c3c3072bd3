"""Questions change places between processes, so that one process answers all questions about a video.

lmms-eval deals questions out one by one, which scatters those about one video over all processes: each of them would
decode, encode and prefill it. Here every process tells the others what it was asked; all of them work out the same
deal, videos that take longest first, each to the process with the least to do; and the answers go back to the process,
and to the place in its list, that asked.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import av
from torch import distributed

from llava.video_opening import VideoReadError, open_video
from lmms_eval_stgridpool.requests import Request

QUESTION_COST = 30
"""What answering a question counts beside decoding, in frames of 1280x720 decoded."""
VIDEO_COST = 120
"""What encoding and prefilling a video counts, in the same unit."""
FRAMES_PER_SEEK = 125
"""Most frames decoded for one that is sampled: half of a usual distance between key frames."""

_LONGEST_ANSWERING = timedelta(days=7)


@dataclass(frozen=True)
class Job:
    """A question on its way to the process that answers it.

    Attributes:
        owner: The process that was asked.
        request: The question; `position` is its place in the owner's list.
        name: Its name in the journal.
        videos: Paths of its videos, or None.
        decoding: Frames of 1280x720 that are decoded for them, as far as the files say.
    """

    owner: int
    request: Request
    name: str
    videos: tuple[str, ...] | None
    decoding: float


class Exchange:
    """Carries questions, answers and counts between the processes of a run.

    They form a group of their own, which goes over the hosts' network even where the accelerators have another one: a
    process that waits in it hears at once that another one has died. Every process must make one, and must then call
    the same methods in the same order.

    Args:
        rank: Number of this process.
        world_size: Number of processes.
        patience: How long `meet` waits for the others.
    """

    def __init__(self, rank: int, world_size: int, patience: timedelta = timedelta(minutes=10)) -> None:
        self._rank, self._world_size = rank, world_size
        self._group: Any = None
        self._impatient_group: Any = None
        if world_size > 1:
            self._group = distributed.new_group(backend="gloo", timeout=_LONGEST_ANSWERING)
            self._impatient_group = distributed.new_group(backend="gloo", timeout=patience)

    def meet(self) -> None:
        """Wait until all processes have come here.

        Raises:
            RuntimeError: If one of them does not come, for instance because it was never called.
        """
        if self._group is None:
            return
        try:
            distributed.monitored_barrier(self._impatient_group)
        except RuntimeError as error:
            raise RuntimeError(
                f"rank {self._rank} waits in vain for the other processes to exchange questions. If none of them has "
                "failed, a response cache (use_cache) knew all answers of one: leave it out and keep answers with "
                f"resume_dir=FOLDER in the model's arguments. {error}"
            ) from error

    def gather(self, value: Any) -> list[Any]:
        """What every process has, in the order of their numbers."""
        if self._group is None:
            return [value]
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


@lru_cache(maxsize=4096)  # several questions ask about each video
def decoding_work(path: str, max_frames_num: int) -> float:
    """What decoding a video costs, in frames of 1280x720; 0 where its header says nothing or cannot be read.

    Args:
        path: The file.
        max_frames_num: Most frames that are sampled from it.
    """
    try:
        if not Path(path).is_file():  # opening a pipe would wait for a writer
            return 0.0
        with open_video(path) as (container, stream):
            seconds = (container.duration or 0) / av.time_base
            frames = stream.frames or int(seconds * float(stream.average_rate or 0))
            return min(frames, max_frames_num * FRAMES_PER_SEEK) * stream.width * stream.height / (1280 * 720)
    except (VideoReadError, av.FFmpegError, OSError, ValueError):
        return 0.0  # the reader will say what is wrong
