"""Evaluate the miniature Video LLM on held-out clips, read from files: every method, and what it answers if cheated.

Control experiments: another clip's video, shuffled frames, no video, always the same letter, and half of the frames.
The data are made by make_data.py where they are missing. The accuracies are in percent.
"""

import argparse
import json
import math
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lmms_eval_stgridpool.kept.paths import path_argument
from stgridpool import Compressor, build_compressor

from .native_watching import NativeWatcher
from .questions import LETTERS, QUESTION_TYPES
from .watching import Asked, Watcher, read_set

NANO = Path(__file__).resolve().parents[1]
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "bilinear (own)": ("bilinear", {}),
    "none": ("none", {}),
    "average, floor": ("average", {"kernel_size": 2}),
    "average, ceil": ("average", {"kernel_size": 2, "ceil_mode": True}),
    "average 3x3": ("average", {"kernel_size": 3}),
    "max, floor": ("max", {"kernel_size": 2}),
    "bilinear, stride 3": ("bilinear", {"stride": 3}),
    "bilinear, stride 7": ("bilinear", {"stride": 7}),
    "nsp": ("nsp", {}),
    "ptg": ("ptg", {}),
    "st_gridpool released": ("st_gridpool", {"preset": "released"}),
    "st_gridpool paper": ("st_gridpool", {"preset": "paper"}),
}
Answers = list[tuple[Asked, str]]


def score(answers: Answers) -> dict[str, float]:
    """Accuracy of each type of question, of all, and half of its 95 % interval clustered by video, in percent."""
    right: dict[str, list[bool]] = defaultdict(list)
    names = {kind.task_type: kind.name for kind in QUESTION_TYPES}
    per_video = []
    for asked, letters in answers:
        hits = [letter == row["answer"] for letter, row in zip(letters, asked.rows, strict=True)]
        per_video.append(sum(hits) / len(hits))
        for hit, row in zip(hits, asked.rows, strict=True):
            right[names[row["task_type"]]].append(hit)
    mean = sum(per_video) / len(per_video)
    variance = sum((value - mean) ** 2 for value in per_video) / max(len(per_video) - 1, 1)
    half = 1.96 * math.sqrt(variance / len(per_video))
    scores = {name: sum(hits) / len(hits) for name, hits in right.items()}
    return {name: round(100 * value, 1) for name, value in {"all": mean, "+-": half, **scores}.items()}


def watcher_of(folder: Path, device: str) -> Watcher | NativeWatcher:
    """Load a checkpoint in LLaVA-NeXT's or in the native format, as its config.json says."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return (NativeWatcher if config["model_type"] == "llava_onevision" else Watcher)(folder, device)


def watch_all(
    watcher: Watcher | NativeWatcher,
    videos: list[Asked],
    compressor: Compressor,
    max_frames: int,
    change: Callable[[Tensor], Tensor] = lambda pixels: pixels,
) -> dict[str, float]:
    """Accuracies, and the mean number of tokens a video, newlines included; `change` is applied to the frames."""
    answers: Answers = []
    tokens = 0
    for asked in videos:
        video = watcher.encode(change(watcher.pixels(asked.path, max_frames)), compressor)
        tokens += len(video)
        answers.append((asked, watcher.answer(asked.prompts, video)))
    return {"tokens": round(tokens / len(videos)), **score(answers)}


def controls(watcher: Watcher | NativeWatcher, videos: list[Asked], max_frames: int) -> dict[str, dict[str, float]]:
    """Run the control experiments with the checkpoint's own pooling."""
    generator = torch.Generator().manual_seed(0)
    own = watcher.own_pooling

    def shuffled(pixels: Tensor) -> Tensor:
        return pixels[torch.randperm(len(pixels), generator=generator)]

    def every_second(pixels: Tensor) -> Tensor:
        return pixels[::2]

    wrong: Answers = []
    for asked, other in zip(videos, videos[1:] + videos[:1], strict=True):
        video = watcher.encode(watcher.pixels(other.path, max_frames), own)
        wrong.append((asked, watcher.answer(asked.prompts, video)))
    table = {
        "wrong video": score(wrong),
        "shuffled frames": watch_all(watcher, videos, own, max_frames, shuffled),
        "no video": score([(asked, watcher.answer(asked.prompts, None)) for asked in videos]),
        "every second frame": watch_all(watcher, videos, own, max_frames, every_second),
    }
    for letter in LETTERS:
        table[f"always {letter}"] = score([(asked, letter * len(asked.rows)) for asked in videos])
    return table


def print_table(title: str, table: dict[str, dict[str, float]]) -> None:
    """Print rows of accuracies in Markdown, for the model card."""
    columns = ["tokens", "all", "+-", *(kind.name for kind in QUESTION_TYPES)]
    print(f"\n| {title} | {' | '.join(columns)} |\n|---{'|---:' * len(columns)}|")
    for name, row in table.items():
        print(f"| {name} | {' | '.join(str(row.get(column, '')) for column in columns)} |")


def main() -> None:
    """Parse the command line, evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=path_argument, default=NANO / "checkpoint", help="default: the shipped")
    parser.add_argument(
        "--data", type=path_argument, default=Path("nano_data"), help="as make_data.py writes them (default nano_data)"
    )
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 8], help="most frames a clip (default 16 8)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="default: all")
    parser.add_argument("--no-controls", action="store_true", help="only the methods")
    parser.add_argument("--limit", type=int, help="only the first clips")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=path_argument, help="also write the numbers to this file")
    arguments = parser.parse_args()
    if arguments.limit is not None and arguments.limit < 1:
        parser.error(f"--limit must be a whole number of clips from 1, got {arguments.limit}")
    if not (arguments.data / "videomme").is_dir():
        subprocess.run([sys.executable, str(NANO / "make_data.py"), str(arguments.data)], check=True)
    videos = read_set(arguments.data / "videomme", arguments.limit)
    watcher = watcher_of(arguments.checkpoint, arguments.device)
    first = arguments.frames[0]
    tables = {} if arguments.no_controls else {f"controls, {first} frames": controls(watcher, videos, first)}
    for max_frames in arguments.frames:
        tables[f"{max_frames} frames"] = {
            name: watch_all(watcher, videos, build_compressor(METHODS[name][0], **METHODS[name][1]), max_frames)
            for name in tqdm(arguments.methods, desc=f"{max_frames} frames")
        }
    for title, table in tables.items():
        print_table(title, table)
    if arguments.json:
        arguments.json.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
