"""lmms-eval's requests in one shape, and what their tasks know about them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmms_eval.api.instance import Instance
from loguru import logger

from lmms_eval_stgridpool.kept.identity import visual_identity
from lmms_eval_stgridpool.questions.prompt_style import restyle
from lmms_eval_stgridpool.run.unanswered import NOTHING_SHOWN, UnansweredError

Visuals = Sequence[Any]
"""What a task shows with a question: paths of videos, or PIL images; may be empty."""


@dataclass(frozen=True)
class Request:
    """One question, as plain data that can go from process to process.

    Attributes:
        kind: What is asked for: "generate_until", "loglikelihood" or "generate_until_multi_round".
        position: Its place in the list that lmms-eval passed.
        context: The question's text.
        argument: What the kind adds: generation arguments, or the continuation.
        document: Number of the document in its split.
        task: Name of the task.
        split: Name of the split.
    """

    kind: str
    position: int
    context: str
    argument: Any
    document: int
    task: str
    split: str


class Tasks:
    """What the tasks of a run know about their questions: rows, visuals, following rounds.

    Args:
        documents: lmms-eval's rows by task, split and number.
        answer_without_visuals: Whether a question is asked though its task shows nothing with it.
        prompt_style: The model of lmms-eval for which questions are worded, see `restyle`; None is ours.
    """

    def __init__(
        self, documents: Mapping[str, Any], answer_without_visuals: bool = False, prompt_style: str | None = None
    ) -> None:
        self._documents = documents
        self._prompt_style = prompt_style
        self._unstyled: set[str] = set()
        self._answer_without_visuals = answer_without_visuals
        self._find_visuals: dict[tuple[str, str], Callable[[Any], Visuals | None]] = {}
        self._next_round: dict[str, Callable[..., Any]] = {}
        self._with_images: set[str] = set()

    def read(self, position: int, instance: Instance) -> Request:
        """Read the arguments of a request, whatever its kind, and keep the task's functions.

        Raises:
            ValueError: If the task did not give the six or seven arguments that a request about visuals has, or gave
                them without its functions, or its questions cannot be worded as asked.
        """
        if len(instance.args) < 6:
            raise ValueError(
                f"task {instance.task_name} asks without visuals: {len(instance.args)} arguments, not 6 or 7"
            )
        kind = instance.request_type
        document, task, split = instance.args[-3:]
        context, argument, find_visuals, *rest = instance.args[:-3]
        if not all(map(callable, (find_visuals, *rest))):
            raise ValueError(
                f"the questions of task {task} came without its doc_to_visual or doc_to_text, which lmms-eval's "
                "--cache_requests loses: leave it out"
            )
        if self._prompt_style is not None:
            is_styled = restyle(instance, self._documents[task][split][document], self._prompt_style)
            if not is_styled and task not in self._unstyled:
                self._unstyled.add(task)
                logger.warning(f"task {task} has no settings for prompt_style={self._prompt_style}: it asks as ever")
            context = instance.args[0]
        self._find_visuals[kind, task] = find_visuals
        if rest:
            self._next_round[task] = rest[0]
        if kind == "loglikelihood" and callable(argument):
            argument = argument(self._documents[task][split][document])
        return Request(kind, position, context, argument, document, task, split)

    def known(self, kind: str) -> set[str]:
        """Tasks that have asked for this kind of answer."""
        return {task for known_kind, task in self._find_visuals if known_kind == kind}

    def row(self, request: Request) -> Any:
        """The dataset's row of a question."""
        return self._documents[request.task][request.split][request.document]

    def visuals(self, request: Request) -> list[Any]:
        """The visuals of a question, loaded by the task; none if the task never shows any, or if that is allowed.

        Raises:
            UnansweredError: If the task shows nothing, or wants to end the process: lmms-eval's tasks do either where a
                video is missing.
        """
        where = f"task {request.task}, document {request.document}"
        try:
            visuals = list(self._find_visuals[request.kind, request.task](self.row(request)) or [])
        except SystemExit as error:
            raise UnansweredError(NOTHING_SHOWN, f"{where}: {error}") from error
        if visuals or self._answer_without_visuals or self.never_shows(request):
            return visuals
        raise UnansweredError(
            NOTHING_SHOWN,
            f"{where}: the task shows nothing, as some do where a video or an image is missing; if it is meant to show "
            "nothing, give answer_without_visuals=True",
        )

    def never_shows(self, request: Request) -> bool:
        """Whether the task is about text alone: it has no ``doc_to_visual``."""
        task = getattr(self._find_visuals[request.kind, request.task], "__self__", None)
        config = getattr(task, "config", None)
        return config is not None and config.doc_to_visual is None

    def video_key(self, request: Request) -> tuple[str, ...] | None:
        """What names the videos; None where there are images or nothing."""
        if request.task in self._with_images:  # tasks that show images are not asked twice for all of them
            return None
        try:
            visuals = self.visuals(request)
        except UnansweredError:
            return None
        key = video_key(visuals)
        if visuals and key is None:
            self._with_images.add(request.task)
        return key

    def pictures(self, request: Request) -> list[Any]:
        """What tells the pictures of a question from others; nothing where they cannot be read, as it then fails."""
        try:
            return [visual_identity(visual) for visual in self.visuals(request)]
        except UnansweredError:
            return []

    def next_round(self, request: Request, **state: Any) -> Any:
        """What the task asks next, or that it is done: what its ``doc_to_text`` returns."""
        return self._next_round[request.task](self.row(request), **state)


def is_padding(instance: Instance) -> bool:
    """Whether the request only evens out the number of requests per process; its answer is thrown away."""
    return bool(instance.metadata.get("__padding_only__"))


def video_key(visuals: Visuals) -> tuple[str, ...] | None:
    """What names the videos of a question; None where there are images or nothing."""
    return tuple(visuals) if visuals and all(isinstance(visual, str) for visual in visuals) else None


def name_questions(requests: Sequence[Request]) -> str:
    """Name the task and the documents of questions of one task, for messages."""
    return f"task {requests[0].task}, document {', '.join(str(request.document) for request in requests)}"
