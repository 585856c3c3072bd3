"""JoinedRun: what one rank shares with the others from the start of a run to its record."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from lmms_eval_stgridpool.kept.fingerprints import CheckpointFingerprints, task_fingerprints
from lmms_eval_stgridpool.kept.output import RunFiles, end_run
from lmms_eval_stgridpool.kept.record import RankSums, run_record
from lmms_eval_stgridpool.questions.exchange import Exchange
from lmms_eval_stgridpool.run import evaluation
from lmms_eval_stgridpool.run.arguments import Arguments
from lmms_eval_stgridpool.run.placement import Placement
from lmms_eval_stgridpool.run.unanswered import Verdict
from lmms_eval_stgridpool.run.versions import warn_of_untested_versions


@dataclass(frozen=True, eq=False)
class JoinedRun:
    """A run, as one of its ranks sees it.

    Attributes:
        exchange: The barriers and collectives of the ranks.
        started: When the run began on this rank, by `time.perf_counter`.
        files: The files of the run; None if lmms-eval writes no results, and on all ranks but the first.
        max_failed: Largest fraction of the questions that may stay unanswered, 0 to 1.
        unrecognised: What is not recognised in this version of lmms-eval; empty on all ranks but the first.
    """

    exchange: Exchange
    started: float
    max_failed: float
    files: RunFiles | None
    unrecognised: tuple[str, ...]

    @classmethod
    def join(cls, placement: Placement, arguments: Arguments, started: float) -> Self:
        """Join a run; rank 0 reserves the names of its files.

        Args:
            placement: Where this rank runs.
            arguments: The arguments of the model.
            started: See the attribute.

        Raises:
            FileExistsError: If another run uses the names.
        """
        files, unrecognised = None, list[str]()
        if placement.rank == 0:
            call = evaluation.current_evaluation()
            if call is not None and call.folder is not None:
                files = RunFiles.claim(call.folder, call.time)
            unrecognised = evaluation.unrecognised()
            warn_of_untested_versions()
        exchange = Exchange(placement.rank, placement.world_size, timedelta(seconds=arguments.barrier_timeout_s))
        return cls(exchange, started, arguments.max_failed, files, tuple(unrecognised))

    def finish(
        self,
        setup: Mapping[str, Any],
        sums: RankSums,
        fingerprints: CheckpointFingerprints | None,
        tasks: Collection[str],
    ) -> tuple[dict[str, Any], Verdict]:
        """Gather the sums of all ranks; rank 0 writes the record. Each rank must call this, even without requests.

        Args:
            setup: The settings of the run, see `describe`.
            sums: Those of this rank.
            fingerprints: Those of the checkpoint, on rank 0.
            tasks: Names of the tasks.

        Returns:
            The record, and the verdict on the run.
        """
        parts, seconds = zip(*self.exchange.gather((sums, time.perf_counter() - self.started)), strict=True)
        digests: dict[str, Any] = {}
        if fingerprints is not None:
            digests = {**fingerprints.result(), "tasks": task_fingerprints(tasks, evaluation.task_index())}
        record = run_record(setup, parts, max(seconds), digests)
        asked = record["requests"] + record["resumed_requests"]
        verdict = Verdict(asked, record["failures"], self.max_failed, record["damaged_videos"])
        failure = str(verdict) if verdict.run_failed else None
        record |= {"run_failed": failure, "unrecognised_in_lmms_eval": list(self.unrecognised)}
        if self.exchange.rank == 0:
            end_run(record, verdict, self.files)
        return record, verdict
