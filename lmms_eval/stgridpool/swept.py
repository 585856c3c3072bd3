"""Swept: what the lmms-eval models of a sweep share, which is everything but their checkpoint's format."""

import copy
import sys
from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from llava.video_opening import VideoReadError
from lmms_eval_stgridpool.answers.asking import ask
from lmms_eval_stgridpool.comparison.choice import Choice
from lmms_eval_stgridpool.evaluated_model import EvaluatedModel
from lmms_eval_stgridpool.kept.sample_facts import Answer, Answered, SampleFacts
from lmms_eval_stgridpool.questions.schedule import Job, in_batches, in_video_order, videos_in_order
from lmms_eval_stgridpool.run.failure import fatal
from lmms_eval_stgridpool.videos.sharing_encoder import SharingEncoder
from stgridpool import Compressor, Step, build_compressor
from stgridpool.budget import BudgetError
from stgridpool.compressor import early_steps
from stgridpool.cost import DecoderSize
from stgridpool.equal_budget import Reference
from stgridpool.plan import MergedTokensError


class UnmeasuredError(ValueError):
    """No video can be read that a retention could be measured against."""


class Swept(EvaluatedModel):
    """One compressor of a sweep; for lmms-eval a model like any other.

    The first model that lmms-eval asks answers the questions about each video with all compressors, one after the
    other, while the video's features are in memory. The other models return these answers when lmms-eval asks them. A
    compressor that cannot meet its budget on a video, or merges tokens where it may only select them, is not asked
    again, and `budget_missed` says why.

    With `resume_dir`, each model has the journal of a separate run: a sweep continues separate runs, and they continue
    a sweep.

    Args:
        **arguments: See `Arguments`.

    Attributes:
        budget_missed: Why this compressor was left out; None if it was not.
        peak_bytes: Peak memory that torch held on a GPU while this compressor answered, weights included, on the rank
            with the most; None on the CPU.

    Raises:
        ValueError: If an argument is unknown or out of range.
    """

    let_through = (BudgetError, MergedTokensError)
    encoder: SharingEncoder

    def __init__(self, **arguments: Any) -> None:
        self.budget_missed: str | None = None
        super().__init__(**arguments)
        self.encoder = SharingEncoder.of(self.encoder)
        self._sweep = [self]
        self._found: dict[Hashable, Answered] = {}
        self.peak_bytes: int | None = None

    @abstractmethod
    def measured_against(self, videos: Callable[[], Sequence[Path]]) -> tuple[Reference, int]:
        """Return what retention is measured against, and the frames T of the lattice of a long video.

        Args:
            videos: Lists the videos of the sweep, where the reference depends on one of them.

        Raises:
            UnmeasuredError: If none of them can be read.
        """

    @abstractmethod
    def own_choice(self) -> tuple[str, dict[str, Any]]:
        """Return name and options of the compressor that leaves the checkpoint as it is."""

    @abstractmethod
    def warn_of_length(self, choices: Sequence[Choice]) -> None:
        """Warn if the longest videos may not fit into the checkpoint's context with some of the compressors.

        Args:
            choices: The compressors.
        """

    def warm_up(self, video: Path) -> None:
        """Answer a question about a video, which loads kernels, so that the first compressor is not charged for that.

        Args:
            video: The video; nothing happens if it cannot be read.
        """
        name, options = self.own_choice()
        try:
            ask(self.encoder, video, ["What is shown?"], {name: build_compressor(name, **options)}, max_new_tokens=2)
        except VideoReadError:
            return
        finally:
            self._forget_features()

    def _forget_features(self) -> None:
        """Free features that were made before `for_each`: they lack the evidence of the compressors."""
        self.encoder.last.forget()

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes of keys and values that a position takes in all layers of the language model."""
        size = DecoderSize.of(self.model.language_model.config.get_text_config())
        return size.kv_bytes([1.0] * size.layers, self.placement.dtype.itemsize)

    def for_each(self, compressors: Sequence[Compressor]) -> list["Swept"]:
        """Create a model for each compressor; all of them share this one's weights in memory.

        Those that change frames alike before the vision tower or in it, if at all, also share features.

        Args:
            compressors: The compressors of the sweep.

        Raises:
            ValueError: If the model cannot run a compressor, which the message names.
        """
        sweep = [copy.copy(self) for _ in compressors]
        first_of: dict[tuple[Step, ...], Swept] = {}
        asked: dict[tuple[Step, ...], list[Compressor]] = {}
        for model, compressor in zip(sweep, compressors, strict=True):
            try:
                self.model.compressor = compressor
            except ValueError as error:
                named = "" if repr(compressor) in str(error) else f"{compressor!r}: "
                raise ValueError(f"{named}{error}") from error
            steps = early_steps(compressor)
            asked.setdefault(steps, []).append(compressor)
            if first_of and steps not in first_of:
                model.encoder = SharingEncoder.of(model._make_encoder())
            first = first_of.setdefault(steps, model)
            model.encoder, model._loader = first.encoder, first._loader
            model._sweep, model._found = sweep, {}
            model._use(compressor)
            model._setup["sweep"] = [repr(one) for one in compressors]
        for steps, first in first_of.items():
            first._ask_tower(asked[steps], steps)
        return sweep

    def _use(self, compressor: Compressor) -> None:
        super()._use(compressor)
        self._own_batch = self._questions_per_batch
        self._questions_per_batch = sys.maxsize  # `_answer_batch` gets all questions about a video

    def _answer_jobs(self, jobs: list[Job], no_answer: Answer) -> list[tuple[Job, Answered]]:
        for model in self._sweep:
            model._take_kept(jobs)
        unknown = [job for job in jobs if any(_key(job) not in model._found for model in self._sweep)]
        if unknown:
            for loader in {model._loader for model in self._sweep} - {self._loader}:
                loader.expect(videos_in_order(in_video_order(unknown)))
            super()._answer_jobs(unknown, no_answer)
        return [(job, self._found[_key(job)]) for job in jobs]

    def _answer_scattered(self, jobs: list[Job], kind: str, no_answer: Answer) -> list[tuple[Job, Answered]]:
        """Scatter the questions that an answer is missing for, and return the answers of all compressors."""
        unknown = [job for job in jobs if _key(job) not in self._found]
        kept = [job for job in unknown if all(model._has_kept(job) for model in self._sweep)]
        self._answer_jobs(kept, no_answer)
        with fatal(f"rank {self.rank}, exchange of questions"):
            missing = [job for job in unknown if _key(job) not in self._found]
            scattered = self.exchange.scatter(missing, self._tasks.known(kind))
        self._answer_jobs(scattered, no_answer)
        answers = [(job, [model._found[_key(job)] for model in self._sweep]) for job in scattered]
        with fatal(f"rank {self.rank}, exchange of answers"):
            for job, of_models in self.exchange.return_answers(answers):
                for model, answer in zip(self._sweep, of_models, strict=True):
                    model._found[_key(job)] = answer
            of_ranks = self.exchange.gather([model.budget_missed for model in self._sweep])
        for model, missed in zip(self._sweep, zip(*of_ranks, strict=True), strict=True):
            model.budget_missed = next((reason for reason in missed if reason is not None), None)
        return [(job, self._found[_key(job)]) for job in jobs]

    def _has_kept(self, job: Job) -> bool:
        """Return whether this compressor's journal has an answer."""
        return self._journal.has(self._own(job).name, job.request)

    def _kept(self, job: Job) -> None:
        """Leave the journal to `_answer_jobs`, which asks the journals of all models."""

    def _take_kept(self, jobs: list[Job]) -> None:
        """Take this compressor's answers of earlier runs from its journal."""
        for job in jobs:
            if _key(job) not in self._found:
                result = self._journal.get(self._own(job).name, job.request)
                if result is not None:
                    self._found[_key(job)] = result
                    self._sums.add_resumed(result.facts)

    def _own(self, job: Job) -> Job:
        """Return a question under its name in this compressor's journal."""
        if not self._journal.is_on:
            return job
        with fatal(f"rank {self.rank}, task {job.request.task}, document {job.request.document}"):
            pictures = self._pictures(job.request, job.videos)
            key = self._journal.key(job.request, job.videos, pictures)
        return replace(job, name=f"{key}-{job.name.rpartition('-')[2]}")

    def _answer_batch(self, jobs: list[Job], no_answer: Answer) -> list[Answered]:
        for model in self._sweep:
            model._answer_alone(jobs, no_answer)
        return [self._found[_key(job)] for job in jobs]

    def _answer_alone(self, jobs: list[Job], no_answer: Answer) -> None:
        """Answer questions about one video with this compressor, then free its tokens and prefix."""
        self.model.compressor = self.compressor
        self._forget_peak()
        unknown = [self._own(job) for job in jobs if _key(job) not in self._found]
        for batch in in_batches(unknown, self._own_batch):
            results = [Answered(no_answer, SampleFacts())] * len(batch)
            if self.budget_missed is None:
                try:
                    results = super()._answer_batch(batch, no_answer)
                except self.let_through as error:
                    self.budget_missed = str(error)
            self._found |= zip(map(_key, batch), results, strict=True)
        self._answerer.forget()
        self._note_peak()

    def _forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def _note_peak(self) -> None:
        if self.device.type == "cuda":
            self.peak_bytes = max(self.peak_bytes or 0, torch.cuda.max_memory_allocated(self.device))

    def _finish_record(self) -> None:
        peaks = [peak for peak in self.exchange.gather(self.peak_bytes) if peak is not None]
        self.peak_bytes = max(peaks, default=None)
        super()._finish_record()


def _key(job: Job) -> Hashable:
    """Identify a question; lmms-eval asks all models the same questions in the same order."""
    return job.owner, job.request.kind, job.request.task, job.request.document, job.request.position
