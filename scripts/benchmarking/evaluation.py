"""``eval``: an evaluation from video files to answers, by the plug-in itself, with and without what saves time.

A model with random weights and clips are made for the occasion. Every variant answers the same multiple-choice
questions through the lmms-eval model `llava_video`; all must give the same answers.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from loguru import logger

from benchmarking.clips import ClipSize, write_clips
from benchmarking.evaluation_report import print_evaluation, summary
from benchmarking.geometry import GEOMETRIES
from benchmarking.measuring import DTYPES
from benchmarking.reporting import add_output_options, report
from benchmarking.variants import VARIANTS, Measured, Question

TOPICS = ("What colour is the large moving shape", "Which way does the large shape move", "How many dots are there")
OPTIONS = ("A. It is red, then blue.", "B. From left to right.", "C. There are seven.", "D. None of the above.")


@dataclass(frozen=True)
class Scale:
    """The default evaluation for a model of some size."""

    frames: int
    videos: int
    compared_videos: int
    clip: ClipSize
    ahead: int  # videos decoded ahead, and at a time


SCALES = {
    "tiny": Scale(frames=16, videos=2, compared_videos=2, clip=ClipSize(320, 240, seconds=20), ahead=2),
    "0.5B": Scale(frames=8, videos=2, compared_videos=2, clip=ClipSize(640, 360, seconds=20), ahead=2),
    "7B": Scale(
        frames=64, videos=32, compared_videos=4, clip=ClipSize(1280, 720, seconds=180), ahead=os.cpu_count() or 2
    ),
}


def add_parser(commands: Any) -> None:
    """Add the command to the parsers `commands`."""
    parser = commands.add_parser(
        "eval",
        help="time a whole evaluation, from video files to answers",
        description="Busy is the share of the time in which the model works: on a GPU by events around its stages, on "
        "the CPU by the clock. Memory is the peak that torch allocated on a GPU, else that of the whole process. "
        "Defaults that are not named depend on the size of the model.",
    )
    parser.add_argument("--size", choices=list(GEOMETRIES), default="tiny", help="geometry of the model")
    parser.add_argument("--questions-per-video", type=int, default=3, metavar="N")
    parser.add_argument("--videos", type=int, help="videos that all improvements together are timed on")
    parser.add_argument("--compared-videos", type=int, help="number of first videos on which the others are timed")
    parser.add_argument("--clip-seconds", type=int, help="length of a video")
    parser.add_argument("--frames", type=int, help="frames of a video that the model sees")
    parser.add_argument("--rounds", type=int, default=1, help="times that everything is timed; the best counts")
    parser.add_argument("--decode-threads", type=int, help="videos decoded at a time")
    parser.add_argument("--prefetch", type=int, help="videos decoded ahead")
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: bfloat16 on a GPU, float32 on the CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    numbers = benchmark_evaluation(arguments)
    report(arguments, numbers, numbers, partial(print_evaluation, numbers))


def benchmark_evaluation(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the benchmark once, and return its numbers, see `summary`."""
    from benchmarking.plug_in import Asker  # noqa: PLC0415 - lmms-eval is slow to import
    from benchmarking.random_model import make_model  # noqa: PLC0415

    logger.remove()
    logger.add(sys.stderr, level="WARNING")  # lmms-eval logs to standard output, where the numbers go
    _complete(arguments)
    device, scale = torch.device(arguments.device), SCALES[arguments.size]
    texts = question_texts(arguments.questions_per_video)
    parts = make_model(GEOMETRIES[arguments.size], texts, DTYPES[arguments.dtype], device)
    clip = ClipSize(scale.clip.width, scale.clip.height, arguments.clip_seconds)
    with tempfile.TemporaryDirectory() as folder:
        clips = write_clips(Path(folder), clip, arguments.videos)
        asker = Asker(parts, arguments)
        asker.ask(VARIANTS[-1], _questions(clips[:1], texts))  # warm-up
        rounds = [_round(asker, clips, texts, arguments.compared_videos) for _ in range(arguments.rounds)]
    return summary(arguments, clip, rounds)


def question_texts(count: int) -> list[str]:
    """Multiple-choice questions as Video-MME asks them."""
    ask = "Select the best answer to the following multiple-choice question based on the video."
    end = "Answer with the option's letter from the given choices directly."
    topics = [f"{TOPICS[index % len(TOPICS)]} in part {index + 1}?" for index in range(count)]
    return ["\n".join([ask, topic, *OPTIONS, end]) for topic in topics]


def _complete(arguments: argparse.Namespace) -> None:
    """Put the defaults of the chosen size and device where nothing was given."""
    scale = SCALES[arguments.size]
    on_gpu = torch.device(arguments.device).type == "cuda"
    defaults = {
        "frames": scale.frames,
        "videos": scale.videos,
        "compared_videos": min(scale.compared_videos, arguments.videos or scale.videos),
        "clip_seconds": scale.clip.seconds,
        "decode_threads": scale.ahead,
        "prefetch": scale.ahead,
        "dtype": "bfloat16" if on_gpu else "float32",
    }
    for name, value in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)


def _round(asker: Any, clips: list[Path], texts: list[str], num_compared: int) -> list[Measured]:
    """Every variant once; the last one, with all improvements, on all clips."""
    few, every = _questions(clips[:num_compared], texts), _questions(clips, texts)
    *single, together = VARIANTS
    return [*(asker.ask(variant, few) for variant in single), asker.ask(together, every)]


def _questions(clips: list[Path], texts: list[str]) -> list[Question]:
    """Every question about every clip, those about a clip one after the other."""
    return [Question(clip, text) for clip in clips for text in texts]
