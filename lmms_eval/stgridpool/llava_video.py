"""The lmms-eval model ``llava_video``: LLaVA-Video and LLaVA-OneVision with any compressor of visual tokens."""

import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.progress import make_progress
from loguru import logger

from llava.model.builder import load_pretrained_model
from llava.video import VideoReadError
from lmms_eval_stgridpool.arguments import Arguments
from lmms_eval_stgridpool.failure import exit_when_lmms_eval_gives_up, fatal
from lmms_eval_stgridpool.generation import Answerer, GenerationSettings
from lmms_eval_stgridpool.media import Media, MediaCache, MediaEncoder
from lmms_eval_stgridpool.placement import place
from lmms_eval_stgridpool.prompts import PromptBuilder
from lmms_eval_stgridpool.record import RankSums, SampleFacts, describe, run_record, write_record
from lmms_eval_stgridpool.requests import (
    Request,
    as_request,
    command_line,
    in_video_order,
    is_padding,
    results_folder,
    video_key,
)
from lmms_eval_stgridpool.resume import Resume
from lmms_eval_stgridpool.sharing import SharedPrefix
from stgridpool.stage_timer import StageTimer

Answer = Callable[[Request, Sequence[Any], SampleFacts, StageTimer], Any]
"""Answers a request about visuals and fills in its facts."""


class LlavaVideo(lmms):
    """A checkpoint in LLaVA-NeXT's format, evaluated with a compressor.

    Questions about one video are answered one after the other, so that each process decodes and encodes it once. A
    video that cannot be read leaves its questions unanswered; every other error ends the run with a non-zero status.

    Args:
        **arguments: See `Arguments`.

    Raises:
        ValueError: If an argument is unknown or out of its range.
    """

    is_simple = True

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self._started = time.perf_counter()
        exit_when_lmms_eval_gives_up()
        self.arguments = Arguments.parse(arguments)
        self.placement = place(self.arguments)
        self.accelerator = self.placement.accelerator
        self._rank, self._world_size = self.placement.rank, self.placement.world_size
        position = self.arguments.mm_newline_position
        self.tokenizer, self.model, image_processor, _ = load_pretrained_model(
            self.arguments.pretrained,
            None,
            self.arguments.model_name,
            device_map=self.placement.device_map,
            torch_dtype=self.placement.dtype,
            attn_implementation=self.arguments.attn_implementation,
            overwrite_config=None if position is None else {"mm_newline_position": position},
            compressor=self.arguments.build_compressor(),
        )
        self.model.eval()
        self.compressor = self.model.compressor
        config = self.model.config
        self._prompts = PromptBuilder(
            self.arguments.conv_template,
            self.tokenizer,
            bool(config.mm_use_im_start_end),
            self.arguments.add_time_instruction,
        )
        self._encoder = MediaEncoder(self.model, image_processor, self.arguments, self.device, self.placement.dtype)
        shares_prefix = self.arguments.share_prefix and not self.compressor.query_aware
        self._shared = SharedPrefix(self.model, shares_prefix)
        self._answerer = Answerer(self.model, self.tokenizer, self.device, self._prompts.stop_text, self._shared)
        self._cache = MediaCache()
        self._sums = RankSums(self.rank)
        self._setup = describe(self.arguments, self.placement, config, self.compressor, shares_prefix)
        self._resume = Resume(self.arguments.resume_dir, self.rank, self._setup)
        self._command_line: Namespace | None = None
        self.run_record: dict[str, Any] | None = None

    @property
    def device(self) -> torch.device:
        """Where this process works; lmms-eval gathers on it."""
        return self.placement.device

    @property
    def batch_size(self) -> int:
        """Questions answered at a time."""
        return 1

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answers in free text, in the order of the requests; empty where a video cannot be read."""

        def answer(request: Request, visuals: Sequence[Any], facts: SampleFacts, timer: StageTimer) -> str:
            settings = GenerationSettings.from_task(request.extra[0])
            return self._generate(request.context, visuals, settings, facts, timer)

        return self._answer_all(requests, answer, no_answer="")

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """The loss of each continuation, and whether it is the greedy one; lmms-eval's tasks take the smallest loss.

        Each pair is wrapped, as lmms-eval would otherwise turn it into text. Where a video cannot be read the loss is
        infinite.
        """
        return self._answer_all(requests, self._score, no_answer=(float("inf"), False))

    def generate_until_multi_round(self, requests: list[Instance]) -> list[GenerationResult]:
        """A list of answers per request: the task makes each round's question from the answers so far."""
        return self._answer_all(requests, self._converse, no_answer=[""])

    def clean(self) -> None:
        """Gather and write the record of the run, then free the model; lmms-eval calls it after the last answer."""
        with fatal(f"rank {self.rank}, record of the run"):
            self._finish_record()
        self._cache = MediaCache()
        for name in ("_encoder", "_answerer", "_shared"):
            self.__dict__.pop(name, None)
        super().clean()

    def _answer_all(self, instances: list[Instance], answer: Answer, no_answer: Any) -> list[GenerationResult]:
        results = [GenerationResult(no_answer) for _ in instances]
        self._command_line = self._command_line or command_line(instances)
        requests = [
            as_request(position, instance, self.task_dict)
            for position, instance in enumerate(instances)
            if not is_padding(instance)
        ]
        videos = self._video_keys(requests)
        progress = make_progress(total=len(requests), desc="Answering", disable=self.rank != 0)
        for index in in_video_order(videos):
            request = requests[index]
            with fatal(f"rank {self.rank}, task {request.task}, document {request.document}"):
                name = self._resume.name(request, videos[index])
                kept = self._resume.get(name, request)
                self._sums.resumed_requests += kept is not None
                results[request.position] = kept or self._answer_one(request, answer, no_answer, name)
            progress.update(1)
        progress.close()
        return results

    def _video_keys(self, requests: Sequence[Request]) -> list[tuple[str, ...] | None]:
        """What names the videos of each question. Tasks that show images are not asked twice for all of them."""
        keys: list[tuple[str, ...] | None] = []
        tasks_without_videos = set()
        for request in requests:
            key = None
            if request.task not in tasks_without_videos:
                with fatal(f"rank {self.rank}, task {request.task}, document {request.document}"):
                    key = request.video_key()
                if key is None:
                    tasks_without_videos.add(request.task)
            keys.append(key)
        return keys

    def _answer_one(self, request: Request, answer: Answer, no_answer: Any, name: str) -> GenerationResult:
        facts, timer = SampleFacts(compressor=repr(self.compressor)), StageTimer(self.device)
        try:
            text = answer(request, request.visuals(), facts, timer)
        except VideoReadError as error:
            logger.error(f"task {request.task}, document {request.document} is not answered: {error}")
            facts.failure, text = str(error), no_answer
            self._sums.failed_videos[error.path] = error.reason
        facts.seconds = timer.seconds()
        self._sums.add_answer(facts)
        self._resume.keep(name, text, facts)
        return GenerationResult(text, facts)

    def _encode(self, visuals: Sequence[Any], facts: SampleFacts, timer: StageTimer) -> Media:
        def encode() -> Media:
            self._shared.forget()
            with torch.inference_mode():
                media = self._encoder.encode(visuals, timer)
            self._sums.add_videos(len(media.clips), media.frames, media.visual_tokens, media.newline_tokens)
            return media

        media = self._cache.get(video_key(visuals), encode)
        facts.frames += media.frames
        facts.visual_tokens += media.visual_tokens
        facts.newline_tokens += media.newline_tokens
        return media

    def _generate(
        self, context: str, visuals: Sequence[Any], settings: GenerationSettings, facts: SampleFacts, timer: StageTimer
    ) -> str:
        media = self._encode(visuals, facts, timer)
        question = self._prompts.question(context, media.num_visuals, media.clips)
        ids = self._prompts.ids(self._prompts.prompt(question))
        text, num_tokens = self._answerer.generate(ids, media, settings, timer)
        _count(facts, len(ids), media, num_tokens)
        return text

    def _score(
        self, request: Request, visuals: Sequence[Any], facts: SampleFacts, timer: StageTimer
    ) -> tuple[float, bool]:
        (continuation,) = request.extra
        media = self._encode(visuals, facts, timer)
        question = self._prompts.question(request.context, media.num_visuals, media.clips)
        opened, closed = self._prompts.prompt(question), self._prompts.prompt(question, continuation)
        context_ids = self._prompts.ids(opened)
        closing_ids = self._prompts.ids(closed[closed.index(continuation, len(opened)) + len(continuation) :])
        ids = self._prompts.ids(closed)
        _count(facts, len(ids), media, 0)
        return self._answerer.score(ids, len(context_ids), len(closing_ids), media, timer)

    def _converse(self, request: Request, visuals: Sequence[Any], facts: SampleFacts, timer: StageTimer) -> list[str]:
        gen_kwargs, doc_to_text = request.extra
        settings = GenerationSettings.from_task(gen_kwargs)
        context, answers, notes = request.context, [], None
        while True:
            answers.append(self._generate(context, visuals, settings, facts, timer))
            visuals, context, finished, outputs, notes = doc_to_text(
                request.document_row(),
                previous_output=list(answers),
                round_idx=len(answers),
                previous_round_info=notes,
            )
            answers, visuals = list(outputs), list(visuals or [])
            if finished:
                return answers

    def _finish_record(self) -> None:
        """Gather the sums of all processes; every one of them comes here, whether it had requests or not."""
        elapsed = time.perf_counter() - self._started
        gathered = gather_object([(self._sums, elapsed, self._command_line)])
        parts, walls, lines = zip(*gathered, strict=True)
        self.run_record = run_record(self._setup, parts, max(walls))
        if self.rank != 0:
            return
        if failed := self.run_record["failed_requests"]:
            videos = len(self.run_record["failed_videos"])
            logger.error(
                f"{failed} of {self.run_record['requests']} questions have no answer: {videos} unreadable videos. "
                "Some of lmms-eval's own tasks score that as a guess; the tasks of custom_tasks count it as wrong."
            )
        arguments = next((line for line in lines if line is not None), None)
        folder = results_folder(arguments)
        if arguments is not None and folder is not None:
            write_record(self.run_record, folder, arguments.model_args)


def _count(facts: SampleFacts, num_ids: int, media: Media, num_generated: int) -> None:
    """Add the tokens of one question and its answer."""
    facts.input_tokens = (facts.input_tokens or 0) + media.prompt_length(num_ids)
    facts.output_tokens = (facts.output_tokens or 0) + num_generated
