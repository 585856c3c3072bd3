"""Summarise the rounds of ``eval``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarking.clips import ClipSize
from benchmarking.geometry import GEOMETRIES
from benchmarking.measuring import DTYPES, MIB, device_name, matmul_flops_per_second
from benchmarking.variants import Measured

MODEL_STAGES = ("vision", "projector", "compress", "prefill", "generate")


def summary(arguments: argparse.Namespace, clip: ClipSize, rounds: Sequence[Sequence[Measured]]) -> dict[str, Any]:
    """Collect the numbers of a run, from the fastest round of each variant.

    Raises:
        RuntimeError: See `check_answers`.
    """
    best = [min(measured, key=lambda one: one.seconds) for measured in zip(*rounds, strict=True)]
    plain, together = best[0], best[-1]
    rows = [row(one, plain, [other[index].seconds for other in rounds]) for index, one in enumerate(best)]
    check_answers(rows, arguments.dtype)
    device = torch.device(arguments.device)
    return {
        "size": arguments.size,
        "weights": "random, seed 0",
        "device": device_name(device),
        "dtype": arguments.dtype,
        "videos": arguments.videos,
        "clip": asdict(clip),
        "frames": arguments.frames,
        "questions_per_video": arguments.questions_per_video,
        "visual_tokens": plain.visual_tokens,
        "prompt_tokens": plain.prompt_tokens,
        "seconds_per_question": rows[-1]["seconds_per_question"],
        "speedup": rows[-1]["speedup"],
        "busy_share": rows[-1]["busy_share"],
        "peak_memory_bytes": together.peak,
        "time_to_first_token_s": _time_to_first_token(plain),
        "matmul": _matmul_shares(arguments, plain),
        "distinct_answers": len(set(together.answers)),
        "variants": rows,
    }


def row(one: Measured, plain: Measured, seconds_by_round: Sequence[float]) -> dict[str, Any]:
    """One variant. Each figure is per question, whatever the number of videos."""
    count = len(one.answers)
    per_question = one.seconds / count
    compared = list(zip(one.answers, plain.answers, strict=False))  # the last variant may have more videos
    return {
        "variant": one.variant.name,
        "questions": count,
        "seconds_per_question": round(per_question, 5),
        "seconds_per_question_by_round": [round(seconds / count, 5) for seconds in seconds_by_round],
        "speedup": round(plain.seconds / len(plain.answers) / per_question, 3),
        "busy_share": round(sum(one.stages.get(stage, 0) for stage in MODEL_STAGES) / one.seconds, 3),
        "stages": {stage: round(seconds / count, 5) for stage, seconds in one.stages.items()},
        "peak_memory_bytes": one.peak,
        "equal_answers": sum(ours == others for ours, others in compared) / len(compared),
    }


def check_answers(rows: Sequence[dict[str, Any]], dtype: str) -> None:
    """Sharing work must not change answers, as far as rounding allows.

    Raises:
        RuntimeError: If in float32 a variant does not answer as the plain loop does.
    """
    if dtype == "float32" and any(row["equal_answers"] < 1 for row in rows):
        raise RuntimeError("the variants answer differently; in float32 they must not")


def _time_to_first_token(plain: Measured) -> dict[str, float]:
    """Of a question about a video that nothing is known of yet, from the file, from pixels, and from tower features."""
    count = len(plain.answers)
    without = sum(plain.stages[stage] for stage in ("projector", "compress", "prefill")) / count
    tower, reading = plain.stages["vision"] / count, plain.stages["wait_for_video"] / count
    return {
        "without_vision_tower": round(without, 5),
        "with_vision_tower": round(without + tower, 5),
        "from_the_file": round(without + tower + reading, 5),
    }


def _matmul_shares(arguments: argparse.Namespace, plain: Measured) -> dict[str, Any]:
    """Return the device's rate for large matrices, and the fraction that tower and prefill reach."""
    geometry, count = GEOMETRIES[arguments.size], len(plain.answers)
    rate = matmul_flops_per_second(torch.device(arguments.device), DTYPES[arguments.dtype])
    vision = arguments.frames * geometry.vision_flops()
    prefill = geometry.prefill_flops(plain.prompt_tokens)
    return {
        "tflops_per_second": round(rate / 1e12, 3),
        "vision_tflops": round(vision / 1e12, 4),
        "vision_share": round(vision / (plain.stages["vision"] / count) / rate, 3),
        "prefill_tflops": round(prefill / 1e12, 4),
        "prefill_share": round(prefill / (plain.stages["prefill"] / count) / rate, 3),
    }


def print_evaluation(numbers: dict[str, Any]) -> None:
    """Print the numbers as tables."""
    console, clip = Console(width=150), numbers["clip"]
    stages = list(dict.fromkeys(stage for row in numbers["variants"] for stage in row["stages"]))
    table = Table(
        title=f"{numbers['size']} geometry, random weights, {numbers['dtype']}, {numbers['device']}; "
        f"{numbers['questions_per_video']} questions a video, {numbers['frames']} frames "
        f"({numbers['visual_tokens']} tokens) of {clip['seconds']} s of {clip['width']}x{clip['height']}"
    )
    table.add_column("variant", no_wrap=True)
    for column in ("s a question", "speed-up", "busy", "memory", "equal answers", *stages):
        table.add_column(column.replace("_", " "), justify="right")
    for row in numbers["variants"]:
        peak = row["peak_memory_bytes"]
        table.add_row(
            row["variant"],
            f"{row['seconds_per_question']:.3f}",
            f"{row['speedup']:.2f}",
            f"{row['busy_share']:.0%}",
            "unknown" if peak is None else f"{peak / MIB:.0f} MiB",
            f"{row['equal_answers']:.0%}",
            *(f"{row['stages'].get(stage, 0):.3f}" for stage in stages),
        )
    console.print(table)
    console.print(
        "Busy: share of the time in stages of the model. Waiting between kernels of a stage counts as busy, so on a "
        "GPU it is an upper bound."
    )
    first, matmul = numbers["time_to_first_token_s"], numbers["matmul"]
    console.print(
        f"Time to first token of a new question: {first['without_vision_tower']:.3f} s without the vision tower, "
        f"{first['with_vision_tower']:.3f} s with it, {first['from_the_file']:.3f} s with reading the video."
    )
    console.print(
        f"Large matrices: {matmul['tflops_per_second']:.2f} TFLOP/s; of that the vision tower reaches "
        f"{matmul['vision_share']:.0%}, the prefill {matmul['prefill_share']:.0%}."
    )
