"""The videos that paths name, and the questions about a user's own videos."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from llava.frame_folder import FRAME_SUFFIXES
from lmms_eval_stgridpool.questions.video_table import TableQuestion, is_table, read_table, table_file

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".mpg", ".mpeg", ".ts", ".wmv")
QUESTIONS = (
    "What happens in this video? Answer in one sentence.",
    "Who or what is shown, and where? Answer in one sentence.",
    "What happens first, and what happens last? Answer in one sentence.",
)
"""Asked about each video that comes without questions."""


def videos_of_paths(paths: Iterable[Path]) -> list[Path]:
    """List the videos for paths: files, folders of files, folders of pictures, and lists (.txt, a path per line).

    Raises:
        FileNotFoundError: If a folder or a list holds none.
    """
    videos: list[Path] = []
    for path in paths:
        if path.suffix == ".txt":
            found = [Path(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        elif path.is_dir() and not any(file.suffix.lower() in FRAME_SUFFIXES for file in path.iterdir()):
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES)
        else:
            found = [path]
        if not found:
            raise FileNotFoundError(f"no videos in {path}")
        videos += found
    return videos


def questions_about(inputs: Sequence[Path]) -> list[TableQuestion]:
    """Return the questions about a user's own videos, whose paths become absolute.

    Args:
        inputs: A table, see `questions.video_table`; or videos, folders of them, or lists, which are asked `QUESTIONS`.

    Raises:
        FileNotFoundError: If there is no such file or folder, or a folder holds no videos.
        ValueError: If a table is not as it must be.
    """
    if len(inputs) == 1 and is_table(str(inputs[0])):
        return [
            replace(question, video=str(Path(question.video).resolve()))
            for question in read_table(table_file(inputs[0]), QUESTIONS)
        ]
    missing = [path for path in inputs if not path.exists()]
    if missing:
        raise FileNotFoundError(f"there is no video, folder or table {missing[0]} (working directory: {Path.cwd()})")
    videos = [str(path.resolve()) for path in videos_of_paths(inputs)]
    return [TableQuestion(video, question) for video in videos for question in QUESTIONS]
