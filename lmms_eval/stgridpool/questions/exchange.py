"""Exchange of questions, answers and counts between the ranks of a run.

Each rank gathers the questions of all ranks, and all compute the same schedule. Every answer then returns to the rank
that was asked the question.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

from torch import distributed

from lmms_eval_stgridpool.questions.rank_progress import RankProgress, new_cpu_group
from lmms_eval_stgridpool.questions.schedule import Job, assign_ranks

T = TypeVar("T")


class Exchange:
    """Exchanges questions, answers and counts between the ranks of a run.

    Messages travel over the hosts' network even if the accelerators have their own. A barrier precedes every exchange,
    see `RankProgress`. Every rank must create one `Exchange`, and must then call the same methods in the same order,
    except `report`.

    Args:
        rank: This rank.
        world_size: Number of ranks.
        timeout: Maximum time to wait for a rank that reports nothing.
    """

    def __init__(self, rank: int, world_size: int, timeout: timedelta) -> None:
        self.rank, self._world_size = rank, world_size
        self._group: distributed.ProcessGroup | None = None
        self._progress: RankProgress | None = None
        if world_size > 1:
            self._group = new_cpu_group()
            self._progress = RankProgress(rank, world_size, timeout)

    def report(self, done: str) -> None:
        """Report progress to the ranks that wait for this one; call it after every piece of work."""
        if self._progress is not None:
            self._progress.report(done)

    def gather(self, value: T) -> list[T]:
        """Gather a value from every rank, in the order of the ranks.

        Raises:
            RuntimeError: If a rank ends, or reports nothing until the timeout.
        """
        if self._progress is None:
            return [value]
        self._progress.barrier()
        values = [value] * self._world_size
        distributed.all_gather_object(values, value, group=self._group)
        return values

    def scatter(self, jobs: Sequence[Job], known_tasks: Iterable[str]) -> list[Job]:
        """Gather the questions of all ranks, and return those that this rank answers.

        Args:
            jobs: The questions that this rank was asked.
            known_tasks: Tasks whose functions this rank has.
        """
        gathered = self.gather((list(jobs), set(known_tasks)))
        everything = [job for others, _ in gathered for job in others]
        ranks = assign_ranks(everything, [tasks for _, tasks in gathered])
        return [job for job, rank in zip(everything, ranks, strict=True) if rank == self.rank]

    def return_answers(self, answers: Sequence[tuple[Job, T]]) -> list[tuple[Job, T]]:
        """Gather the answers of all ranks, and return those to the questions that this rank was asked."""
        gathered = self.gather(list(answers))
        return [(job, answer) for found in gathered for job, answer in found if job.owner == self.rank]
