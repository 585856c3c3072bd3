"""The videos that the questions of tasks show, and those that paths name."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from lmms_eval.evaluator_utils import get_task_list
from lmms_eval.tasks import TaskManager, get_task_dict

from llava.frame_folder import FRAME_SUFFIXES
from lmms_eval_stgridpool.questions.requests import Tasks

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".mpg", ".mpeg", ".ts", ".wmv")


def videos_of_tasks(names: Sequence[str], manager: TaskManager) -> list[Path]:
    """List the videos that the questions of tasks show, one entry per question and video.

    Args:
        names: Names of tasks.
        manager: Knows the tasks.
    """
    videos: list[str] = []
    for output in get_task_list(get_task_dict(list(names), manager, "simple")):
        task = output.task
        task.build_all_requests()
        reader = Tasks({output.task_name: task.dataset})
        for position, instance in enumerate(task.instances):
            videos += reader.video_key(reader.read(position, instance)) or ()
    return [Path(video) for video in videos]


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
