"""What the ranks of a run tell each other: the questions they were asked, the answers, and what they counted.

Each rank tells the others what it was asked, all work out the same schedule, and every answer goes back to the rank
that was asked, and to the question's place in its list.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from torch import distributed

from lmms_eval_stgridpool.questions.rank_progress import RankProgress
from lmms_eval_stgridpool.questions.schedule import Job, deal


class Exchange:
    """Carries questions, answers and counts between the ranks of a run.

    They go over the hosts' network even where the accelerators have another one. Before ranks exchange anything they
    wait for each other, see `RankProgress`. Every rank must make one exchange, and must then call the same methods in
    the same order, except `report`.

    Args:
        rank: This rank.
        world_size: Number of ranks.
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
        """Gather a value from every rank, in the order of the ranks.

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
        """Give and take questions, and return those that this rank answers.

        Args:
            jobs: What this rank was asked.
            known_tasks: Tasks whose functions this rank has.
        """
        gathered = self.gather((list(jobs), set(known_tasks)))
        everything = [job for others, _ in gathered for job in others]
        dealt = deal(everything, [tasks for _, tasks in gathered])
        return [job for job, process in zip(everything, dealt, strict=True) if process == self._rank]

    def give_back(self, answers: Sequence[tuple[Job, Any]]) -> list[tuple[Job, Any]]:
        """Give and take answers, and return those to what this rank was asked."""
        gathered = self.gather(list(answers))
        return [(job, answer) for found in gathered for job, answer in found if job.owner == self._rank]
