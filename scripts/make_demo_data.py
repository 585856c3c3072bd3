"""Make short silent video clips of moving shapes, and questions about them in the format of Video-MME.

Every clip shows one large coloured shape that moves steadily in one direction, and one to four small white dots that
stay. There are three questions a clip: the shape's colour, its direction, the number of dots. Each has four options,
and each letter is the right one equally often. The same seed gives the same questions, byte for byte.

Written below the folder, as custom_tasks/videomme_local.yaml reads it: the questions as `test-00000-of-00001.parquet`,
the clips as `data/<videoID>.mp4` (H.264, no sound).
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from datasets import Dataset, disable_progress_bars

HEIGHT, WIDTH = 240, 320  # pixels
FRAMES_PER_SECOND = 4
SECONDS = (4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 50, 60)  # the lengths of the clips, over and over
RADIUS = 44  # pixels, of the large shape
COLOURS = {"red": (200, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 220), "yellow": (230, 210, 50)}
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}  # (rows, columns)
SHAPES = ("disc", "square", "diamond")
DOTS = ("one", "two", "three", "four")


@dataclass(frozen=True)
class Clip:
    """What a clip shows."""

    video_id: str
    seconds: int
    shape: str
    colour: str
    direction: str
    num_dots: int  # 1 to 4
    start: tuple[int, int]  # row and column of the shape's centre in the first frame, in pixels
    speed: int  # pixels per frame

    @property
    def num_frames(self) -> int:
        """Frames in the file."""
        return self.seconds * FRAMES_PER_SECOND

    @property
    def duration(self) -> str:
        """Video-MME's name for the length: here up to 10 s, up to 30 s, and longer."""
        return "short" if self.seconds <= 10 else "medium" if self.seconds <= 30 else "long"


def plan_clips(num_clips: int, rng: np.random.Generator) -> list[Clip]:
    """Return what each clip shows; colours, directions and counts each occur equally often, up to one."""
    rounds = -(-num_clips // 4)
    colours, directions, counts = (
        rng.permutation(np.tile(np.array(values), rounds))[:num_clips]
        for values in (list(COLOURS), list(DIRECTIONS), range(1, 5))
    )
    return [
        Clip(
            video_id=f"clip{i:03d}",
            seconds=SECONDS[i % len(SECONDS)],
            shape=str(rng.choice(SHAPES)),
            colour=str(colours[i]),
            direction=str(directions[i]),
            num_dots=int(counts[i]),
            start=(int(rng.integers(HEIGHT)), int(rng.integers(WIDTH))),
            speed=int(rng.integers(6, 13)),
        )
        for i in range(num_clips)
    ]


def draw(clip: Clip, frame: int) -> np.ndarray:
    """Return frame number `frame` as (HEIGHT, WIDTH, 3) uint8. What leaves on one side comes in on the other."""
    picture = np.full((HEIGHT, WIDTH, 3), 60, dtype=np.uint8)
    step = np.array(DIRECTIONS[clip.direction]) * clip.speed * frame
    row, column = (np.array(clip.start) + step) % (HEIGHT, WIDTH)
    rows = _distance(np.arange(HEIGHT), row, HEIGHT)[:, None]
    columns = _distance(np.arange(WIDTH), column, WIDTH)[None, :]
    inside = {
        "disc": rows**2 + columns**2 <= RADIUS**2,
        "square": np.maximum(rows, columns) <= RADIUS,
        "diamond": rows + columns <= RADIUS,
    }[clip.shape]
    picture[inside] = COLOURS[clip.colour]
    for dot in range(clip.num_dots):
        picture[16:28, 20 + 40 * dot : 32 + 40 * dot] = 255
    return picture


def _distance(places: np.ndarray, centre: int, size: int) -> np.ndarray:
    """Return the distance of `places` from `centre` on a circle of `size` pixels."""
    straight = np.abs(places - centre)
    return np.minimum(straight, size - straight)


def write_clip(clip: Clip, path: Path) -> None:
    """Write the clip as an H.264 file without sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"preset": "veryfast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in range(clip.num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(draw(clip, frame), format="rgb24")))
        container.mux(stream.encode())


def ask(clips: list[Clip], rng: np.random.Generator) -> Iterator[dict]:
    """Yield one row of Video-MME per question, three for each clip."""
    letters = rng.permutation(np.resize(list("ABCD"), 3 * len(clips)))
    for number, clip in enumerate(clips):
        asked = (
            ("Attribute Perception", f"What colour is the large {clip.shape}?", list(COLOURS), clip.colour),
            ("Action Recognition", f"Which way does the large {clip.shape} move?", list(DIRECTIONS), clip.direction),
            ("Counting Problem", "How many small white dots are shown?", list(DOTS), DOTS[clip.num_dots - 1]),
        )
        for i, (task_type, question, choices, answer) in enumerate(asked):
            letter = str(letters[3 * number + i])
            yield {
                "video_id": f"{number + 1:03d}",
                "duration": clip.duration,
                "domain": "Knowledge",
                "sub_category": "Technology",
                "url": "",
                "videoID": clip.video_id,
                "question_id": f"{number + 1:03d}-{i + 1}",
                "task_type": task_type,
                "question": question,
                "options": _options(choices, answer, letter, rng),
                "answer": letter,
            }


def _options(choices: list[str], answer: str, letter: str, rng: np.random.Generator) -> list[str]:
    """Return "A. …" to "D. …": the answer at `letter`, the other choices in random order."""
    texts = [str(text) for text in rng.permutation([choice for choice in choices if choice != answer])]
    texts.insert("ABCD".index(letter), answer)
    return [f"{name}. {text.capitalize()}." for name, text in zip("ABCD", texts, strict=True)]


def write_dataset(folder: Path, num_clips: int, seed: int) -> list[Clip]:
    """Write clips and questions below `folder`, which is made; return what the clips show."""
    rng = np.random.default_rng(seed)
    clips = plan_clips(num_clips, rng)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    disable_progress_bars()
    Dataset.from_list(list(ask(clips, rng))).to_parquet(folder / "test-00000-of-00001.parquet")
    for clip in clips:
        write_clip(clip, folder / "data" / f"{clip.video_id}.mp4")
    return clips


def main() -> None:
    """Parse the command line and write the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write them, for example demo/data/videomme")
    parser.add_argument("--clips", type=int, default=12, help="number of clips, with three questions each (default 12)")
    parser.add_argument("--seed", type=int, default=0, help="seed of clips and questions (default 0)")
    arguments = parser.parse_args()
    clips = write_dataset(arguments.folder, arguments.clips, arguments.seed)
    shown = f"{len(clips)} clips, {sum(clip.seconds for clip in clips)} s in all, {3 * len(clips)} questions"
    print(f"{arguments.folder}: {shown} (seed {arguments.seed}).")


if __name__ == "__main__":
    main()
