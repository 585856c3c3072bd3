"""``peer``: lmms-eval's own model `llava_vid` against `llava_video`, with the same checkpoint, questions and frames.

Both answer the same requests in one process, one after the other, after a question to warm up. `llava_vid` runs on the
`llava` package of this repository, so that what is compared is how questions are answered: one by one from the file, or
each video decoded, encoded and prefilled once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from rich.console import Console
from rich.table import Table

from benchmarking.measuring import device_name, synchronise
from benchmarking.reporting import add_output_options, report

MODELS = ("llava_vid", "llava_video")
CLIP_SECONDS = (8, 16)  # the shortest and the longest
QUESTION_END = {"post_prompt": "\nAnswer with the option's letter from the given choices directly."}


def add_parser(commands: Any) -> None:
    """Add the command to the parsers `commands`."""
    parser = commands.add_parser(
        "peer",
        help="compare with lmms-eval's own llava_vid",
        description="Clips with eight questions each are made as scripts/nano/make_data.py makes them.",
    )
    parser.add_argument("--checkpoint", default="scripts/nano/checkpoint", help="folder (default: the miniature)")
    parser.add_argument("--clips", type=int, default=24, help="at least 2 (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=16, help="most frames of a clip (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="times that both answer; the best counts")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    numbers = benchmark_peer(arguments)
    report(arguments, numbers, numbers, partial(print_peer, numbers))


def benchmark_peer(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare both models once: seconds per question, accuracy, their ratio, and the share of equal answers."""
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        rows, videos = _make_questions(Path(folder), arguments.clips)
        with redirect_stdout(sys.stderr):  # llava_vid prints while it loads
            models = {name: _load(name, arguments) for name in MODELS}
        for model in models.values():
            _ask(model, rows[-1:], videos)  # warm-up, about the clip that comes last
        answers: dict[str, list[str]] = {}
        seconds = dict.fromkeys(MODELS, float("inf"))
        for _ in range(arguments.rounds):
            for name, model in models.items():
                synchronise(device)
                started = time.perf_counter()
                answers[name] = _ask(model, rows, videos)
                synchronise(device)
                seconds[name] = min(seconds[name], time.perf_counter() - started)
    return summary(arguments, rows, answers, seconds)


def summary(
    arguments: argparse.Namespace,
    rows: Sequence[dict[str, Any]],
    answers: dict[str, list[str]],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Summarise the answers and times of both models.

    Args:
        arguments: The command line.
        rows: The questions.
        answers: Texts by model, in the order of the questions.
        seconds: Of all questions together, by model.
    """
    right = [row["answer"] for row in rows]
    pairs = list(zip(*answers.values(), strict=True))
    return {
        "checkpoint": arguments.checkpoint,
        "device": device_name(torch.device(arguments.device)),
        "clips": arguments.clips,
        "questions": len(rows),
        "frames": arguments.frames,
        "seconds_per_question": {name: round(seconds[name] / len(rows), 5) for name in MODELS},
        "ratio": round(seconds["llava_vid"] / seconds["llava_video"], 2),
        "equal_answers_share": round(sum(one == other for one, other in pairs) / len(pairs), 4),
        "accuracy": {name: round(sum(map(str.__eq__, answers[name], right)) / len(right), 4) for name in MODELS},
    }


def print_peer(numbers: dict[str, Any]) -> None:
    """Print the numbers as a table."""
    table = Table(
        title=f"{numbers['questions']} questions about {numbers['clips']} clips, at most {numbers['frames']} frames, "
        f"checkpoint {numbers['checkpoint']}, {numbers['device']}"
    )
    for column in ("model", "seconds a question", "right answers"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name in MODELS:
        table.add_row(name, f"{numbers['seconds_per_question'][name]:.3f}", f"{numbers['accuracy'][name]:.1%}")
    console = Console(width=110)
    console.print(table)
    console.print(
        f"llava_video is {numbers['ratio']:.1f} times as fast; {numbers['equal_answers_share']:.1%} of the answers are "
        "equal."
    )


def _make_questions(folder: Path, clips: int) -> tuple[list[dict[str, Any]], Path]:
    """Rows like Video-MME's, and the folder of their videos."""
    import pyarrow.parquet  # noqa: PLC0415 - loads only where it is needed
    from nano.miniature.make_data import write_videomme  # noqa: PLC0415

    if clips < 2:
        raise SystemExit("--clips must be at least 2: the warm-up takes the last one")
    write_videomme(folder / "videomme", clips, CLIP_SECONDS, seed=0)
    [table] = (folder / "videomme").glob("*.parquet")
    return pyarrow.parquet.read_table(table).to_pylist(), folder / "videomme" / "data"


def _load(name: str, arguments: argparse.Namespace) -> Any:
    """One of the two models, with the pooling and the newlines that the checkpoint asks for."""
    from lmms_eval.models import get_model  # noqa: PLC0415 - lmms-eval is slow to import

    config = json.loads((Path(arguments.checkpoint) / "config.json").read_text())
    on_gpu = torch.device(arguments.device).type == "cuda"
    options = {
        "pretrained": arguments.checkpoint,
        "conv_template": "qwen_1_5",
        "max_frames_num": arguments.frames,
        "torch_dtype": "float16" if on_gpu else "float32",
        "device": arguments.device,
        "batch_size": 1,
    }
    if name == "llava_video":
        options |= {"compressor": "bilinear"}
    else:
        options |= {"mm_spatial_pool_mode": "bilinear", "mm_newline_position": config["mm_newline_position"]}
        options |= {"device_map": arguments.device if on_gpu else "auto"}  # it knows no other way to the CPU
    return get_model(name)(**options)


def _ask(model: Any, rows: Sequence[dict[str, Any]], videos: Path) -> list[str]:
    """Ask Video-MME's questions as lmms-eval does, and return the answers."""
    from lmms_eval.api.instance import Instance, unwrap_generation_output  # noqa: PLC0415
    from lmms_eval.tasks.videomme.utils import videomme_doc_to_text  # noqa: PLC0415

    def visuals(row: dict[str, Any]) -> list[str]:
        return [str(videos / f"{row['videoID']}.mp4")]

    model.task_dict["peer"] = {"test": list(rows)}
    instances = []
    for index, row in enumerate(rows):
        settings = {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}
        arguments: tuple[str, dict[str, Any], Callable[..., list[str]], int, str, str]
        arguments = (videomme_doc_to_text(row, QUESTION_END), settings, visuals, index, "peer", "test")
        metadata = {"task": "peer", "doc_id": index, "repeats": 1}
        instances.append(Instance("generate_until", arguments, 0, metadata))
    return [unwrap_generation_output(answer)[0].strip() for answer in model.generate_until(instances)]
