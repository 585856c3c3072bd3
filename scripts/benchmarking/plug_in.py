"""Questions asked of the plug-in, as lmms-eval asks them, in variants that share more or less work."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import Instance, unwrap_generation_output

from benchmarking.measuring import peak_bytes, reset_peak, synchronise
from benchmarking.random_model import RandomModel
from benchmarking.variants import Measured, Question, Variant
from llava.video_model import LlavaVideoModel
from lmms_eval_stgridpool.llava_video import LlavaVideo

MAX_NEW_TOKENS = 16  # as Video-MME's task says


class MadeModel(LlavaVideo):
    """The plug-in's model with random weights instead of loaded ones.

    Args:
        parts: The model, its tokenizer and its image processor.
        **arguments: See `lmms_eval_stgridpool.run.llava_arguments.LlavaArguments`.
    """

    def __init__(self, parts: RandomModel, **arguments: Any) -> None:
        self._parts = parts
        super().__init__(pretrained="random weights", **arguments)

    def _load_model(self) -> LlavaVideoModel:
        self.arguments = self.arguments.for_checkpoint(self._parts.model.config.to_dict())
        return LlavaVideoModel(self._parts.model, self._parts.tokenizer, self._parts.image_processor)


class Asker:
    """Asks a model questions.

    Args:
        parts: The model.
        arguments: The command line.
    """

    def __init__(self, parts: RandomModel, arguments: argparse.Namespace) -> None:
        self._parts, self._arguments = parts, arguments
        self._device = torch.device(arguments.device)

    def ask(self, variant: Variant, questions: Sequence[Question]) -> Measured:
        """Answer the questions one way; the time begins when the first one is asked.

        Raises:
            RuntimeError: If one is not answered, since its video cannot be read.
        """
        given = self._arguments
        model = MadeModel(
            self._parts,
            device=given.device,
            torch_dtype=given.dtype,
            max_frames_num=given.frames,
            force_sample=True,
            share_prefix=variant.share_prefix,
            questions_per_batch=given.questions_per_video if variant.batch else 1,
            decode_threads=given.decode_threads,
            prefetch=given.prefetch if variant.ahead else 0,
        )
        instances = _instances(model, questions, own_files=not variant.encode_once)
        reset_peak(self._device)
        synchronise(self._device)
        started = time.perf_counter()
        results = model.generate_until(instances)
        synchronise(self._device)
        seconds = time.perf_counter() - started
        answers, facts = zip(*map(unwrap_generation_output, results), strict=True)
        failures = [one.failure for one in facts if one.failure is not None]
        if failures:
            raise RuntimeError(f"{len(failures)} questions have no answer, the first because {failures[0]}")
        return Measured(
            variant=variant,
            seconds=seconds,
            stages=_summed(one.seconds for one in facts),
            answers=list(answers),
            visual_tokens=facts[0].visual_tokens + facts[0].newline_tokens,
            prompt_tokens=max(one.input_tokens for one in facts),
            peak=peak_bytes(self._device),
        )


def _summed(parts: Iterable[dict[str, float]]) -> dict[str, float]:
    """Sum seconds by stage, in the order of the stages."""
    sums: dict[str, float] = {}
    for part in parts:
        for stage, seconds in part.items():
            sums[stage] = sums.get(stage, 0.0) + seconds
    return sums


def _instances(model: LlavaVideo, questions: Sequence[Question], own_files: bool) -> list[Instance]:
    """Create the requests that a task would create."""
    videos = [
        _own_file(question.video, index) if own_files else question.video for index, question in enumerate(questions)
    ]
    model.task_dict["benchmark"] = {"test": [{"video": str(video)} for video in videos]}
    settings = {"max_new_tokens": MAX_NEW_TOKENS, "temperature": 0, "do_sample": False}
    return [
        Instance(
            request_type="generate_until",
            arguments=(question.text, settings, lambda row: [row["video"]], index, "benchmark", "test"),
            idx=0,
            metadata={"task": "benchmark", "doc_id": index, "repeats": 1},
        )
        for index, question in enumerate(questions)
    ]


def _own_file(video: Path, index: int) -> Path:
    """Give a video another name, so that the plug-in treats it as another video."""
    name = video.with_name(f"{video.stem}_for_{index}{video.suffix}")
    if not name.exists():
        os.link(video, name)
    return name
