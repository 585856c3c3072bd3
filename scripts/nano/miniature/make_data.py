"""Write held-out clips as video files, and questions about them in the formats of Video-MME and of VNBench.

Written below the folder:

* videomme/: `test-00000-of-00001.parquet` and `data/<videoID>.mp4`, as custom_tasks/videomme_local.yaml reads them; one
  question of every type for each clip. The lengths are cut into three ranges: short, medium and long.
* vnbench/: `test.json` and `videos/<name>.mp4`: clips whose digit appears at a chosen depth, each asked about four
  times with the answer at each of the letters.

Files are H.264 without sound, 256 x 256 pixels, two pictures a second. The same seed gives the same questions, byte for
byte. Training never draws from these seeds.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import torch
from datasets import Dataset, disable_progress_bars
from torch import Tensor

from lmms_eval_stgridpool.kept.paths import own_folder, path_argument

from .drawing import draw_clips
from .questions import LETTERS, QUESTION_TYPES, draw_options, option_lines
from .world import DIGITS, Clips, plan_clips

SIZE = 256  # pixels along a side
PICTURES_PER_SECOND = 2
DURATIONS = ("short", "medium", "long")
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # 0: the first second, 1: the last
HELD_OUT = 10**15  # seeds of the training are below


def plan_held_out(num_clips: int, seconds: tuple[int, int], seed: int) -> list[Clips]:
    """Plan clips one by one; their lengths run through the range over and over."""
    lengths = range(seconds[0], seconds[1] + 1)
    return [
        plan_clips(1, lengths[number % len(lengths)], torch.Generator().manual_seed(HELD_OUT + 10**6 * seed + number))
        for number in range(num_clips)
    ]


def write_clip(clip: Clips, path: Path) -> None:
    """Write one clip as an H.264 file without sound."""
    times = torch.arange(clip.seconds * PICTURES_PER_SECOND) / PICTURES_PER_SECOND
    pictures = draw_clips(clip, SIZE, times)[0].permute(0, 2, 3, 1).round().to(torch.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=PICTURES_PER_SECOND, options={"preset": "fast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for picture in pictures.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def videomme_rows(clips: list[Clips], seconds: tuple[int, int], seed: int) -> Iterator[dict[str, Any]]:
    """Yield a row of Video-MME for each clip and type of question; in each type all letters are right equally often."""
    generator = torch.Generator().manual_seed(HELD_OUT + 10**6 * seed - 1)
    letters = [_balanced_letters(len(clips), generator) for _ in QUESTION_TYPES]
    for number, clip in enumerate(clips):
        part = (clip.seconds - seconds[0]) * len(DURATIONS) // (seconds[1] - seconds[0] + 1)
        for type_number, kind in enumerate(QUESTION_TYPES):
            letter = letters[type_number][number]
            options = draw_options(kind, clip, letter[None], generator)[0]
            yield {
                "video_id": f"{number + 1:03d}",
                "duration": DURATIONS[part],
                "domain": "Knowledge",
                "sub_category": "Technology",
                "url": "",
                "videoID": f"nano{number:04d}",
                "question_id": f"{number + 1:03d}-{type_number + 1}",
                "task_type": kind.task_type,
                "question": kind.text,
                "options": option_lines([kind.words[word] for word in options]),
                "answer": LETTERS[letter],
            }


def vnbench_rows(clips: list[Clips], seed: int) -> Iterator[dict[str, Any]]:
    """Yield four items of VNBench for each clip: one question about its digit, the answer at each of the letters."""
    generator = torch.Generator().manual_seed(HELD_OUT + 10**6 * seed - 2)
    kind = next(kind for kind in QUESTION_TYPES if kind.name == "needle")
    for number, clip in enumerate(clips):
        digit, second = clip.needle[0].tolist()
        words = draw_options(kind, clip, torch.zeros(1, dtype=torch.long), generator)[0].tolist()  # the answer first
        for attempt in range(len(LETTERS)):
            turned = words[-attempt:] + words[:-attempt] if attempt else words
            yield {
                "video": f"videos/needle{number:04d}.mp4",
                "question": kind.text,
                "options": [kind.words[word] for word in turned],
                "gt": DIGITS[digit],
                "gt_option": LETTERS[attempt],
                "length": float(clip.seconds),
                "type": "ret_insert1",
                "try": attempt,
                "needle_time": [second],
            }


def with_needle_at(clip: Clips, depth: float) -> Clips:
    """Return the clip with its digit at a depth from 0 to 1."""
    needle = clip.needle.clone()
    needle[:, 1] = round(depth * (clip.seconds - 1))
    return replace(clip, needle=needle)


def write_videomme(folder: Path, num_clips: int, seconds: tuple[int, int], seed: int) -> None:
    """Write the Video-MME-like set into `folder`, which is made; a folder that holds anything else is refused."""
    own_folder("the Video-MME-like set", folder)
    clips = plan_held_out(num_clips, seconds, seed)
    (folder / "data").mkdir(exist_ok=True)
    disable_progress_bars()
    rows = list(videomme_rows(clips, seconds, seed))
    Dataset.from_list(rows).to_parquet(folder / "test-00000-of-00001.parquet")
    for number, clip in enumerate(clips):
        write_clip(clip, folder / "data" / f"nano{number:04d}.mp4")


def write_vnbench(folder: Path, num_clips: int, seconds: tuple[int, int], seed: int) -> None:
    """Write the VNBench-like set into `folder`, which is made; a folder that holds anything else is refused."""
    own_folder("the VNBench-like set", folder)
    planned = plan_held_out(num_clips, seconds, seed + 500)
    clips = [with_needle_at(clip, DEPTHS[number % len(DEPTHS)]) for number, clip in enumerate(planned)]
    (folder / "videos").mkdir(exist_ok=True)
    text = json.dumps(list(vnbench_rows(clips, seed)), indent=1) + "\n"
    (folder / "test.json").write_text(text, encoding="utf-8")
    for number, clip in enumerate(clips):
        write_clip(clip, folder / "videos" / f"needle{number:04d}.mp4")


def _balanced_letters(count: int, generator: torch.Generator) -> Tensor:
    """(count,) numbers 0 to 3, each as often as the others up to one, in random order."""
    return (torch.arange(count) % len(LETTERS))[torch.randperm(count, generator=generator)]


def main() -> None:
    """Parse the command line and write both sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=path_argument, help="where to write them, for example data")
    parser.add_argument("--clips", type=int, default=125, help="clips of the Video-MME-like set (default 125)")
    parser.add_argument("--needles", type=int, default=25, help="clips of the VNBench-like set (default 25)")
    parser.add_argument(
        "--seconds", type=int, nargs=2, default=(8, 16), metavar=("SHORTEST", "LONGEST"), help="default: 8 16"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of clips and questions (default 0)")
    arguments = parser.parse_args()
    seconds = tuple(arguments.seconds)
    write_videomme(arguments.folder / "videomme", arguments.clips, seconds, arguments.seed)
    write_vnbench(arguments.folder / "vnbench", arguments.needles, seconds, arguments.seed)
    print(
        f"{arguments.folder}: {arguments.clips} clips with {arguments.clips * len(QUESTION_TYPES)} questions, and "
        f"{arguments.needles} with {arguments.needles * len(LETTERS)} questions about needles (seed {arguments.seed})."
    )
