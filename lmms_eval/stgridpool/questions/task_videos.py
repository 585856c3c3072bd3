"""The videos that the questions of tasks show."""

from collections.abc import Sequence
from pathlib import Path

from lmms_eval.evaluator_utils import get_task_list
from lmms_eval.tasks import TaskManager, get_task_dict

from lmms_eval_stgridpool.questions.requests import Tasks


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
