r"""Fill a feature cache ahead of time, so that evaluations neither decode nor encode.

The videos are those of tasks, and files, folders of files, folders of pictures, and lists (.txt, a path per line).
Features that are there already stay. Several processes share the work:

  accelerate launch --num_processes 8 scripts/extract_features.py --tasks videomme \
    --model_args pretrained=lmms-lab/LLaVA-Video-7B-Qwen2,max_frames_num=64,feature_cache=features

Evaluations find the features with the same --model_args, whatever their compressor, unless it asks the vision tower for
more: then name it here, too, and what it asks for is kept as well. Ends with status 1 if a video cannot be read, or its
features are not finite.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from lmms_eval_stgridpool.manifest import exit_without_own_llava

exit_without_own_llava()  # before the imports that would fail

import torch
from lmms_eval.evaluator_utils import get_task_list
from lmms_eval.models.model_utils.progress import make_progress
from lmms_eval.tasks import TaskManager, get_task_dict

from llava.video import FRAME_SUFFIXES, VideoReadError
from lmms_eval_stgridpool.kept.paths import path_argument
from lmms_eval_stgridpool.llava_video import LlavaVideo
from lmms_eval_stgridpool.questions.requests import Tasks
from lmms_eval_stgridpool.run.model_args import parse_model_args
from stgridpool.finite import NonFiniteError, all_finite
from stgridpool.timing import StageTimer

REPOSITORY = Path(__file__).resolve().parent.parent
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".mpg", ".mpeg", ".ts", ".wmv")


def videos_of_tasks(names: Sequence[str], include_path: Path) -> list[Path]:
    """List the videos that the questions of tasks show."""
    manager = TaskManager(include_path=str(include_path), model_name="llava_video")
    videos: list[str] = []
    for output in get_task_list(get_task_dict(list(names), manager, "simple")):
        task = output.task
        task.build_all_requests()
        reader = Tasks({output.task_name: task.dataset})
        for position, instance in enumerate(task.instances):
            videos += reader.video_key(reader.read(position, instance)) or ()
    return [Path(video) for video in videos]


def videos_of_paths(paths: Iterable[Path]) -> list[Path]:
    """List the videos for paths on the command line.

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


def extract(model: LlavaVideo, videos: Sequence[Path]) -> tuple[int, list[str]]:
    """Put the features of videos into the model's cache.

    Returns:
        How many were there already, and why others have no features.

    Raises:
        OSError: If the cache cannot be written any more.
    """
    known, failures = 0, []
    model.encoder.loader.expect(videos)
    progress = make_progress(total=len(videos), desc="Encoding videos", disable=model.rank != 0)
    for count, video in enumerate(videos, start=1):
        try:
            with torch.inference_mode():
                [features] = model.encoder.features([video], StageTimer(model.device))
                if not all_finite(features.features):
                    raise NonFiniteError("vision tower", features.features.dtype)
            known += features.is_from_cache
        except NonFiniteError as error:
            failures.append(f"{video}: {error}")
        except VideoReadError as error:
            failures.append(str(error))
        if not model.encoder.cache.is_writable:
            raise OSError(f"features cannot be written to {model.encoder.cache.folder}")
        progress.update(1)
        model.exchange.report(f"read {count} of {len(videos)} videos")
    progress.close()
    return known, failures


def main() -> None:
    """Parse the command line and encode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=path_argument, nargs="*", help="videos, folders, lists")
    parser.add_argument("--tasks", help="names of tasks, separated by commas")
    parser.add_argument("--model_args", required=True, help="those of the evaluation, with feature_cache=FOLDER")
    parser.add_argument(
        "--include_path", type=path_argument, default=REPOSITORY / "custom_tasks", help="folder of further tasks"
    )
    arguments = parser.parse_args()
    model_args = parse_model_args(arguments.model_args)
    if "feature_cache" not in model_args:
        parser.error("--model_args must name a folder: feature_cache=FOLDER")
    if not arguments.paths and not arguments.tasks:
        parser.error("name tasks or videos")
    videos = videos_of_paths(arguments.paths)
    if arguments.tasks:
        videos += videos_of_tasks(arguments.tasks.split(","), arguments.include_path)
    videos = list(dict.fromkeys(videos))

    model = LlavaVideo(**model_args)
    outcomes = model.exchange.gather(extract(model, videos[model.rank :: model.world_size]))
    failures = [failure for _, found in outcomes for failure in found]
    if model.rank == 0:
        known = sum(count for count, _ in outcomes)
        print(*failures, sep="\n", end="\n" * bool(failures), file=sys.stderr)
        print(
            f"{len(videos)} videos: {len(videos) - known - len(failures)} encoded, {known} were there, "
            f"{len(failures)} failed. Features in {model.arguments.feature_cache}"
        )
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
