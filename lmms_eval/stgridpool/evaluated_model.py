"""EvaluatedModel: what the lmms-eval models of this plug-in share, which is everything but how they load.

Arguments, schedule, prefetching, caches, journal, counts and the handling of failures are the same for every model.
"""

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.progress import make_progress

from lmms_eval_stgridpool.answers.answering import Answerer
from lmms_eval_stgridpool.answers.shared_prefix import SharedPrefix
from lmms_eval_stgridpool.kept.fingerprints import CheckpointFingerprints
from lmms_eval_stgridpool.kept.identity import answer_key, checkpoint_version
from lmms_eval_stgridpool.kept.joined_run import JoinedRun
from lmms_eval_stgridpool.kept.journal import Journal
from lmms_eval_stgridpool.kept.record import RankSums, describe
from lmms_eval_stgridpool.kept.sample_facts import Answer, Answered
from lmms_eval_stgridpool.questions.requests import Request, Tasks, is_padding, name_questions
from lmms_eval_stgridpool.questions.schedule import Job, decoding_work, in_batches, in_video_order, videos_in_order
from lmms_eval_stgridpool.run import determinism, evaluation
from lmms_eval_stgridpool.run.arguments import Arguments
from lmms_eval_stgridpool.run.failure import exit_when_lmms_eval_gives_up, fatal
from lmms_eval_stgridpool.run.launcher import end_with_launcher
from lmms_eval_stgridpool.run.model_args import parse_model_args
from lmms_eval_stgridpool.run.placement import place
from lmms_eval_stgridpool.run.unanswered import Verdict
from lmms_eval_stgridpool.videos.encoding import MediaEncoder
from lmms_eval_stgridpool.videos.feature_setup import open_feature_cache
from lmms_eval_stgridpool.videos.prefetch import VideoLoader
from stgridpool import Compressor, Step, kernels
from stgridpool.compressor import early_steps
from stgridpool.model import VideoModel


class EvaluatedModel(lmms):
    """A model of lmms-eval with a compressor; a subclass knows its arguments and loads the checkpoint.

    One rank answers all questions about a video, so it is decoded, encoded and prefilled only once. If a video is
    missing or cannot be read, its questions stay unanswered. Every other error, or too many unanswered questions, ends
    the run with a non-zero status.

    Args:
        **arguments: See `arguments_class`.

    Attributes:
        arguments_class: The class of the model's arguments; class attribute.
        loader_class: The class that prefetches videos; class attribute.

    Raises:
        ValueError: If an argument is unknown or out of its range.
    """

    is_simple = True
    arguments_class: ClassVar[type[Arguments]]
    loader_class: ClassVar[type[VideoLoader]] = VideoLoader
    let_through: type[Exception] | tuple[type[Exception], ...] = ()
    """Errors of answering that do not end the run."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        started = time.perf_counter()
        end_with_launcher()
        exit_when_lmms_eval_gives_up()
        self.arguments = self.arguments_class.parse(arguments)
        evaluation.refuse_response_cache(evaluation.current_evaluation(), self.arguments.allow_use_cache)
        if self.arguments.deterministic:
            determinism.switch_on()
        self.placement = place(self.arguments)
        if self.arguments.triton_kernels:
            kernels.switch_on(self.device)
        else:
            kernels.switch_off()
        self._run = JoinedRun.join(self.placement, self.arguments, started)
        self.exchange, self.accelerator = self._run.exchange, self.placement.accelerator
        self._rank, self._world_size = self.placement.rank, self.placement.world_size
        self.model = self._load_model()
        self.model.compressor = self.arguments.build_compressor()
        self.model.vision_batch_size = self.arguments.fixed_vision_batch_size()
        self._tasks = Tasks(self.task_dict, self.arguments.answer_without_visuals, self.arguments.prompt_style)
        self.encoder = self._make_encoder()
        self._fingerprints = CheckpointFingerprints.of(self.arguments, self.model) if self.rank == 0 else None
        self.run_record: dict[str, Any] | None = None
        self.verdict: Verdict | None = None
        self._ask_tower([self.model.compressor], early_steps(self.model.compressor))
        self._use(self.model.compressor)

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Mapping[str, Any] | None = None) -> Self:
        """Create the model from ``--model_args`` and lmms-eval's own options; called by lmms-eval.

        Args:
            arg_string: The text of ``--model_args``.
            additional_config: lmms-eval's options; None values are ignored.

        Raises:
            ValueError: If an argument is unknown, out of its range or given twice.
        """
        exit_when_lmms_eval_gives_up()
        return cls(**parse_model_args(arg_string, additional_config))

    def _ask_tower(self, compressors: Sequence[Compressor], steps: Sequence[Step] = ()) -> None:
        """Have the vision tower compute the evidence any of `compressors` needs, after the early steps of all."""
        self._loader.ask(compressors, steps)

    def _use(self, compressor: Compressor) -> None:
        """Set up everything that depends on the compressor: how questions are answered, recorded and kept."""
        shares_prefix = self.arguments.share_prefix and self.model.shares_prefix and not compressor.query_aware
        self._compressor = compressor
        self._sums = RankSums(self.rank)
        self._answerer = Answerer(self._tasks, self.encoder, SharedPrefix(self.model, shares_prefix), self._sums)
        is_batched = shares_prefix and not self.arguments.deterministic  # rounding depends on the rest of the batch
        self._questions_per_batch = self.arguments.questions_per_batch if is_batched else 1
        self._setup = describe(self.arguments, self.placement, self.model.facts(), compressor, shares_prefix)
        self._journal = Journal(self.arguments, self.rank, self._setup, self._tower, compressor)

    @property
    def compressor(self) -> Compressor:
        """The compressor; it is set once, by the arguments, as records and journals name it."""
        return self._compressor

    @property
    def device(self) -> torch.device:
        """The device of this rank; lmms-eval gathers on it."""
        return self.placement.device

    @property
    def batch_size(self) -> int:
        """Number of questions that lmms-eval passes as one."""
        return 1

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:  # type: ignore[override]
        """Answer requests in free text, in their order; an answer is empty if the video cannot be read."""
        return self._answer_all(requests, "generate_until", no_answer="")

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:  # type: ignore[override]
        """Compute the loss of each continuation, and whether it is the greedy one.

        lmms-eval's tasks choose the smallest loss; it is infinite if the video cannot be read. Each pair is wrapped,
        because lmms-eval would otherwise turn it into text.
        """
        return self._answer_all(requests, "loglikelihood", no_answer=(float("inf"), False))

    def generate_until_multi_round(self, requests: list[Instance]) -> list[GenerationResult]:  # type: ignore[override]
        """Answer each request in rounds: the task asks the next question after it has seen the answers so far."""
        return self._answer_all(requests, "generate_until_multi_round", no_answer=[""])

    def clean(self) -> None:
        """Gather and write the record of the run, then free the model; called by lmms-eval after the last answer."""
        with fatal(f"rank {self.rank}, record of the run"):
            self._finish_record()
        self._loader.close()
        for holder_of_the_model in ("_answerer", "encoder"):
            self.__dict__.pop(holder_of_the_model, None)
        super().clean()  # type: ignore[no-untyped-call]

    @abstractmethod
    def _load_model(self) -> VideoModel:
        """Load the checkpoint that the arguments name onto the devices of this process."""

    def _make_encoder(self) -> MediaEncoder:
        keeps = self.arguments.feature_cache is not None or self.arguments.resume_dir is not None
        identity = self.model.identity() if keeps else None
        tower = self.model.facts().get("vision_tower", "")
        self._tower = answer_key(identity) if identity else checkpoint_version(tower, None)
        cache = open_feature_cache(self.arguments, identity)
        pin = self.device.type == "cuda"
        self._loader = self.loader_class(self.model.recipe, self.arguments, self.placement.dtype, pin, cache)
        return MediaEncoder(self.model, self._loader, self.device, cache)

    def _answer_all(self, instances: list[Instance], kind: str, no_answer: Answer) -> list[GenerationResult]:
        if self._fingerprints is not None:
            self._fingerprints.start()
        results = [GenerationResult(no_answer) for _ in instances]  # type: ignore[arg-type]
        has_barriers = self.world_size > 1 and not evaluation.uses_response_cache()
        is_scattered = has_barriers and kind != "generate_until_multi_round"
        jobs = []
        for position, instance in enumerate(instances):
            with fatal(f"rank {self.rank}, task {instance.task_name}"):
                request = self._tasks.read(position, instance)
            if not is_padding(instance):
                jobs.append(self._job(request))
            self.exchange.report(f"read question {position + 1} of {len(instances)}")
        kept = [(job, self._kept(job)) for job in jobs]
        known = [(job, result) for job, result in kept if result is not None]
        for _, result in known:
            self._sums.add_resumed(result.facts)
        jobs = [job for job, result in kept if result is None]
        answers = self._answer_scattered(jobs, kind, no_answer) if is_scattered else self._answer_jobs(jobs, no_answer)
        if has_barriers and not is_scattered:
            with fatal(f"rank {self.rank}, barrier after the answers"):
                self.exchange.gather(None)  # lmms-eval's own barrier, which comes next, does not wait for slow ranks
        for job, result in [*known, *answers]:
            results[job.request.position] = result.for_lmms_eval()
        return results

    def _answer_scattered(self, jobs: list[Job], kind: str, no_answer: Answer) -> list[tuple[Job, Answered]]:
        """Scatter the questions of all ranks by their videos, answer this rank's share, and return the answers."""
        with fatal(f"rank {self.rank}, exchange of questions"):
            jobs = self.exchange.scatter(jobs, self._tasks.known(kind))
        answers = self._answer_jobs(jobs, no_answer)
        with fatal(f"rank {self.rank}, exchange of answers"):
            return self.exchange.return_answers(answers)

    def _answer_jobs(self, jobs: list[Job], no_answer: Answer) -> list[tuple[Job, Answered]]:
        jobs = in_video_order(jobs)
        self._loader.expect(videos_in_order(jobs))
        answers: list[tuple[Job, Answered]] = []
        progress = make_progress(total=len(jobs), desc="Answering", disable=self.rank != 0)
        for batch in in_batches(jobs, self._questions_per_batch):
            answers += zip(batch, self._answer_batch(batch, no_answer), strict=True)
            progress.update(len(batch))
            self.exchange.report(f"answered {len(answers)} of {len(jobs)} questions")
        progress.close()
        return answers

    def _job(self, request: Request) -> Job:
        with fatal(f"rank {self.rank}, task {request.task}, document {request.document}"):
            videos = self._tasks.video_key(request)
            decoded = videos or () if self.world_size > 1 else ()  # one rank has nothing to share out
            decoding = sum(decoding_work(path, self.arguments.max_frames_num) for path in decoded)
            name = self._journal.name(request, videos, self._pictures(request, videos))
            return Job(self.rank, request, name, videos, decoding)

    def _pictures(self, request: Request, videos: tuple[str, ...] | None) -> Sequence[object]:
        """Identify what a request shows instead of videos: pictures, or features of files that are gone."""
        if not self._journal.is_on:
            return ()
        return self._tasks.pictures(request) if videos is None else self._loader.entries_of_missing(videos)

    def _kept(self, job: Job) -> Answered | None:
        """Return the answer of an earlier run, or None."""
        return self._journal.get(job.name, job.request)

    def _answer_batch(self, jobs: list[Job], no_answer: Answer) -> list[Answered]:
        requests = [job.request for job in jobs]
        if self.arguments.deterministic:
            repeat = jobs[0].name.rpartition("-")[2]
            determinism.seed_from(f"{requests[0].task} {requests[0].document} {repeat}")
        with fatal(f"rank {self.rank}, {name_questions(requests)}, videos {jobs[0].videos}", self.let_through):
            results = self._answerer.answer(requests, no_answer)
        for job, result in zip(jobs, results, strict=True):
            self._journal.keep(job.name, result)
        return results

    def _finish_record(self) -> None:
        """Gather the sums of all ranks; each rank must call this, even if it had no requests."""
        self._sums.resumed_of_other_code = self._journal.taken_of_other_code
        self._sums.answers_not_kept = self._journal.finish()
        self.run_record, self.verdict = self._run.finish(self._setup, self._sums, self._fingerprints, self.task_dict)
