"""Features of many videos, put into the cache ahead of evaluations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lmms_eval.models.model_utils.progress import make_progress

from llava.video import VideoReadError
from lmms_eval_stgridpool.evaluated_model import EvaluatedModel
from lmms_eval_stgridpool.llava_video import LlavaVideo
from lmms_eval_stgridpool.questions.path_videos import videos_of_paths
from lmms_eval_stgridpool.questions.task_videos import videos_of_tasks
from lmms_eval_stgridpool.run.checkpoint_checks import NATIVE, model_of
from lmms_eval_stgridpool.run.model_args import parse_model_args
from lmms_eval_stgridpool.run.offline_tasks import task_manager
from lmms_eval_stgridpool.run.progress import log_progress
from lmms_eval_stgridpool.run.table_tasks import with_tables
from lmms_eval_stgridpool.video_hf import VideoHf
from stgridpool.finite import NonFiniteError, all_finite
from stgridpool.timing import StageTimer


@dataclass(frozen=True)
class Extraction:
    """The outcome for the videos, on all ranks.

    Attributes:
        videos: Number of videos.
        known: How many of them had features before.
        failures: Why others have none.
        folder: The cache.
        is_first: Whether this is the first rank, which reports.
    """

    videos: int
    known: int
    failures: tuple[str, ...]
    folder: str
    is_first: bool

    def __str__(self) -> str:
        encoded = self.videos - self.known - len(self.failures)
        return (
            f"{self.videos} videos: {encoded} encoded, {self.known} were there, {len(self.failures)} failed. "
            f"Features in {self.folder}"
        )


def extract_all(paths: Sequence[Path], tasks: Sequence[str], model_args: str, include: Sequence[Path]) -> Extraction:
    """Fill the cache with the features of the videos that paths and tasks name; several processes share the work.

    Args:
        paths: See `videos_of_paths`.
        tasks: Names of tasks, or paths of tables.
        model_args: Arguments of llava_video, or of video_hf for native models, with ``feature_cache=FOLDER``.
        include: Folders of further task files.

    Raises:
        ValueError: If `model_args` name no folder for the cache or no checkpoint, there is neither a path nor a task,
            or a table is not as it must be.
    """
    arguments = parse_model_args(model_args)
    if "feature_cache" not in arguments:
        raise ValueError("--model_args must name a folder: feature_cache=FOLDER")
    if not paths and not tasks:
        raise ValueError("name tasks or videos")
    videos = videos_of_paths(paths)
    if tasks:
        names, tables = with_tables(",".join(tasks))
        videos += videos_of_tasks(names, task_manager(names, [*tables, *include]))
    videos = list(dict.fromkeys(videos))
    if model_of(arguments) == NATIVE:
        model: EvaluatedModel = VideoHf(**{"compressor": "none"} | arguments)
    else:
        model = LlavaVideo(**arguments)
    outcomes = model.exchange.gather(extract(model, videos[model.rank :: model.world_size]))
    failures = tuple(failure for _, found in outcomes for failure in found)
    known = sum(count for count, _ in outcomes)
    return Extraction(len(videos), known, failures, str(model.arguments.feature_cache), model.rank == 0)


def extract(model: EvaluatedModel, videos: Sequence[Path]) -> tuple[int, list[str]]:
    """Put the features of videos into the model's cache.

    Returns:
        How many were there already, and why others have no features.

    Raises:
        OSError: If the cache cannot be written any more.
    """
    known, failures = 0, []
    model.encoder.loader.expect(videos)
    log_progress()
    progress = make_progress(total=len(videos), desc="Encoding videos", disable=model.rank != 0)
    for count, video in enumerate(videos, start=1):
        try:
            with torch.inference_mode():
                [features] = model.encoder.features([video], StageTimer(model.device))
                for values in features.named().values():
                    if not all_finite(values):
                        raise NonFiniteError("vision tower", values.dtype)
            known += features.is_from_cache
        except NonFiniteError as error:
            failures.append(f"{video}: {error}")
        except VideoReadError as error:
            failures.append(str(error))
        if (cache := model.encoder.cache) is not None and not cache.is_writable:
            raise OSError(f"features cannot be written to {cache.folder}")
        progress.update(1)
        model.exchange.report(f"read {count} of {len(videos)} videos")
    progress.close()
    return known, failures
