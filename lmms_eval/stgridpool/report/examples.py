"""Questions on which two runs disagree, with frames of the video."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from loguru import logger
from PIL import Image

from llava.video import VideoReadError, read_video
from lmms_eval_stgridpool.questions.video_table import VIDEO_SUFFIXES
from lmms_eval_stgridpool.report.runs import TaskRun

HEIGHT = 90  # of a picture, in pixels
PICTURES = 6


@dataclass(frozen=True)
class Example:
    """A question, the answers of two runs, and the right one.

    Attributes:
        task: The task.
        question: As the model read it.
        truth: The right answer.
        answers: Answer by run, the baseline's first.
        scores: Score by run.
        pictures: JPEG files of frames of the video, none if it was not found or cannot be read.
        video: The video.
    """

    task: str
    question: str
    truth: str
    answers: dict[str, str]
    scores: dict[str, float]
    pictures: Sequence[bytes]
    video: str


def find_examples(runs: Sequence[TaskRun], baseline: str | None, count: int, videos: Path | None) -> list[Example]:
    """Choose questions that the baseline and another run answer differently, one right and the other wrong.

    Runs and videos take turns, so that the examples do not all come from one of them.

    Args:
        runs: The runs.
        baseline: Name of the run that others are compared with; None for the first one.
        count: Maximum number of examples.
        videos: Folder below which the videos lie, named by the task's "videoID", which may be a path; None for no
            pictures.

    Raises:
        ValueError: If `videos` is not a folder.
    """
    if videos is not None and not videos.is_dir():
        raise ValueError(f"--videos {videos}: there is no such folder")
    files = {path.stem: path for path in sorted(videos.rglob("*")) if path.suffix in VIDEO_SUFFIXES} if videos else {}
    found: dict[tuple[str, str], list[Example]] = {}
    for run in runs:
        own = next((one for one in runs if one.task == run.task and baseline in (None, one.run)), None)
        if own is None or run is own:
            continue
        for document in own.samples:
            scores = [one.entry(document).get("score") if document in one.samples else None for one in (own, run)]
            if None in scores or scores[0] == scores[1]:
                continue
            video = str(own.video(document))
            if (run.run, video) not in found:
                found[run.run, video] = []
            found[run.run, video].append(_example(own, run, document, video))
    turns = [example for examples in zip_longest(*found.values()) for example in examples if example is not None]
    return [_with_pictures(one, files.get(one.video) or files.get(Path(one.video).stem)) for one in turns[:count]]


def _example(own: TaskRun, run: TaskRun, document: object, video: str) -> Example:
    sample = own.samples[document]
    return Example(
        task=own.task,
        question=str(sample.get("input", "")),
        truth=str(own.entry(document).get("answer", sample.get("target", ""))),
        answers={one.run: one.answer(document) for one in (own, run)},
        scores={one.run: float(one.entry(document)["score"]) for one in (own, run)},
        pictures=(),
        video=video,
    )


def _with_pictures(example: Example, file: Path | None) -> Example:
    if file is None:
        return example
    try:
        clip = read_video(str(file), max_frames_num=PICTURES, force_sample=True)
    except VideoReadError as error:
        logger.warning(f"an example has no pictures: {error}")
        return example
    pictures = []
    for frame in clip.frames:
        picture = Image.fromarray(frame)
        picture.thumbnail((4 * HEIGHT, HEIGHT))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        pictures.append(buffer.getvalue())
    return replace(example, pictures=tuple(pictures))
