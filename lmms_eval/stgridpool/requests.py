"""lmms-eval's requests in one shape, in an order in which questions about one video follow each other."""

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.loggers.evaluation_tracker import GeneralConfigTracker

from llava.video import VideoReadError

Visuals = Sequence[Any]
"""What a task shows with a question: paths of videos, or PIL images; may be empty."""


@dataclass(frozen=True)
class Request:
    """One question.

    Attributes:
        kind: What is asked for: "generate_until", "loglikelihood" or "generate_until_multi_round".
        position: Its place in the list that lmms-eval passed.
        context: The question's text.
        extra: What the kind of request adds: generation arguments, the continuation, ...
        document: Number of the document in its split.
        task: Name of the task.
        document_row: The dataset's row.
        find_visuals: Gives the visuals of the row.
    """

    kind: str
    position: int
    context: str
    extra: tuple[Any, ...]
    document: int
    task: str
    document_row: Callable[[], Any]
    find_visuals: Callable[[Any], Visuals | None]

    def visuals(self) -> list[Any]:
        """The visuals, loaded by the task.

        Raises:
            VideoReadError: If the task wants to end the process, which is what lmms-eval's do where a video is missing.
        """
        try:
            return list(self.find_visuals(self.document_row()) or [])
        except SystemExit as error:
            raise VideoReadError(f"of document {self.document}", str(error)) from error

    def video_key(self) -> tuple[str, ...] | None:
        """What names the videos; None where there are images or nothing, and its own name where videos are missing."""
        try:
            return video_key(self.visuals())
        except VideoReadError as error:
            return (error.path,)


def is_padding(instance: Instance) -> bool:
    """Whether the request only evens out the number of requests per process; its answer is thrown away."""
    return bool(instance.metadata.get("__padding_only__"))


def as_request(position: int, instance: Instance, task_dict: Mapping[str, Any]) -> Request:
    """Read the arguments of a request, whatever its kind.

    Raises:
        ValueError: If the task did not give the six or seven arguments that a request about visuals has.
    """
    if len(instance.args) < 6:
        raise ValueError(f"task {instance.task_name} asks without visuals: {len(instance.args)} arguments, not 6 or 7")
    document, task, split = instance.args[-3:]

    def document_row() -> Any:
        return task_dict[task][split][document]

    if instance.request_type == "loglikelihood":
        context, continuation, find_visuals = instance.args[:3]
        if callable(continuation):
            continuation = continuation(document_row())
        extra: tuple[Any, ...] = (continuation,)
    else:
        context, gen_kwargs, find_visuals, *doc_to_text = instance.args[:-3]
        extra = (gen_kwargs, *doc_to_text)
    return Request(instance.request_type, position, context, extra, document, task, document_row, find_visuals)


def in_video_order(keys: Sequence[Any]) -> list[int]:
    """Positions such that equal keys follow each other; otherwise in the order given. A key of None equals nothing."""
    first: dict[Any, int] = {}
    for position, key in enumerate(keys):
        if key is not None:
            first.setdefault(key, position)
    return sorted(range(len(keys)), key=lambda position: (first.get(keys[position], position), position))


def video_key(visuals: Visuals) -> tuple[str, ...] | None:
    """What names the videos of a question; None where there are images or nothing."""
    return tuple(visuals) if visuals and all(isinstance(visual, str) for visual in visuals) else None


def command_line(instances: Sequence[Instance]) -> Namespace | None:
    """lmms-eval's command-line arguments, which it leaves with each task; None when it was called from Python."""
    return next(iter(_command_lines(instances)), None)


def _command_lines(instances: Sequence[Instance]) -> Iterator[Namespace]:
    for instance in instances:
        for argument in instance.args:
            arguments = getattr(getattr(argument, "__self__", None), "args", None)  # of the task that owns a method
            if isinstance(arguments, Namespace):
                yield arguments


def results_folder(arguments: Namespace | None) -> Path | None:
    """The folder into which lmms-eval writes the results of a run with these command-line arguments."""
    if arguments is None or not arguments.output_path:
        return None
    tracker = GeneralConfigTracker()
    tracker.log_experiment_args(arguments.model, str(arguments.model_args), "", "", False)
    return Path(arguments.output_path) / tracker.model_name_sanitized
