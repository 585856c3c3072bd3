"""lmms-eval's requests in one form, and what their tasks know about them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmms_eval.api.instance import Instance
from loguru import logger

from lmms_eval_stgridpool.kept.identity import visual_identity
from lmms_eval_stgridpool.questions.prompt_style import restyle
from lmms_eval_stgridpool.run.unanswered import NOTHING_SHOWN, UnansweredError

Row = Mapping[str, Any]
"""The dataset's row of a question."""
Visuals = Sequence[object]
"""The visuals of a question: paths of videos, or PIL images; may be empty."""
Round = tuple[Visuals | None, str, bool, Sequence[str], Any]
"""A task's next round: visuals, question, whether it is done, the answers so far, and notes for itself."""


@dataclass(frozen=True)
class Request:
    """One question, as plain data that can be sent to another process.

    Attributes:
        kind: Kind of answer: "generate_until", "loglikelihood" or "generate_until_multi_round".
        position: Position in the list that lmms-eval passed.
        context: Text of the question.
        argument: Generation arguments, or the continuation to score.
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
    """Knows the questions of a run's tasks: rows, visuals, further rounds.

    Args:
        documents: lmms-eval's rows by task, split and number.
        answer_without_visuals: Whether to answer a question although its task shows nothing.
        prompt_style: The model of lmms-eval whose wording to use, see `restyle`; None for the default wording.
    """

    def __init__(
        self, documents: Mapping[str, Any], answer_without_visuals: bool = False, prompt_style: str | None = None
    ) -> None:
        self._documents = documents
        self._prompt_style = prompt_style
        self._unstyled: set[str] = set()
        self._answer_without_visuals = answer_without_visuals
        self._find_visuals: dict[tuple[str, str], Callable[[Row], Visuals | None]] = {}
        self._next_round: dict[str, Callable[..., Round]] = {}
        self._with_images: set[str] = set()

    def read(self, position: int, instance: Instance) -> Request:
        """Read the arguments of a request of any kind, and keep the task's functions.

        Args:
            position: Position in the list that lmms-eval passed.
            instance: The request.

        Raises:
            ValueError: If the request does not have six or seven arguments, as those about visuals have, if it lacks
                the task's functions, or if its question cannot be reworded.
        """
        if len(instance.args) < 6:
            raise ValueError(
                f"task {instance.task_name} must ask about visuals, with 6 or 7 arguments, got {len(instance.args)}"
            )
        kind = instance.request_type
        document, task, split = instance.args[-3:]
        context, argument, find_visuals, *rest = instance.args[:-3]
        if not all(map(callable, (find_visuals, *rest))):
            raise ValueError(
                f"the questions of task {task} lack its functions doc_to_visual or doc_to_text, because lmms-eval's "
                "--cache_requests does not store them: leave that option out"
            )
        if self._prompt_style is not None:
            is_styled = restyle(instance, self._documents[task][split][document], self._prompt_style)
            if not is_styled and task not in self._unstyled:
                self._unstyled.add(task)
                logger.warning(f"task {task} has no settings for prompt_style={self._prompt_style}: wording unchanged")
            context = instance.args[0]
        self._find_visuals[kind, task] = find_visuals
        if rest:
            self._next_round[task] = rest[0]
        if kind == "loglikelihood" and callable(argument):
            argument = argument(self._documents[task][split][document])
        return Request(kind, position, context, argument, document, task, split)

    def known(self, kind: str) -> set[str]:
        """Return the tasks that have asked for this kind of answer."""
        return {task for known_kind, task in self._find_visuals if known_kind == kind}

    def row(self, request: Request) -> Row:
        """Return the dataset's row of a question."""
        row: Row = self._documents[request.task][request.split][request.document]
        return row

    def visuals(self, request: Request) -> Visuals:
        """Have the task load the visuals of a question; there are none if the task is about text.

        Raises:
            UnansweredError: If the task unexpectedly shows nothing, or wants to end the process. lmms-eval's tasks do
                one or the other if a video is missing.
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
            f"{where}: the task shows nothing, as some do if a video or an image is missing; if nothing is meant to be "
            "shown, set answer_without_visuals=True",
        )

    def never_shows(self, request: Request) -> bool:
        """Tell whether the task is about text alone: then it has no ``doc_to_visual``."""
        task = getattr(self._find_visuals[request.kind, request.task], "__self__", None)
        config = getattr(task, "config", None)
        return config is not None and config.doc_to_visual is None

    def video_key(self, request: Request) -> tuple[str, ...] | None:
        """Return the paths of the videos; None if the question shows images or nothing."""
        if request.task in self._with_images:  # saves loading all images of the task twice
            return None
        try:
            visuals = self.visuals(request)
        except UnansweredError:
            return None
        key = video_key(visuals)
        if visuals and key is None:
            self._with_images.add(request.task)
        return key

    def pictures(self, request: Request) -> list[object]:
        """Identify the pictures of a question; return nothing if they cannot be read: the question will fail, too."""
        try:
            return [visual_identity(visual) for visual in self.visuals(request)]
        except UnansweredError:
            return []

    def next_round(self, request: Request, **state: Any) -> Round:
        """Ask the task for its next question, or whether it is done, by calling its ``doc_to_text``."""
        return self._next_round[request.task](self.row(request), **state)


def is_padding(instance: Instance) -> bool:
    """Tell whether lmms-eval discards the answer: the request only evens out the number of requests per rank."""
    return bool(instance.metadata.get("__padding_only__"))


def video_key(visuals: Visuals) -> tuple[str, ...] | None:
    """Return the paths of a question's videos; None if it shows images or nothing."""
    paths = tuple(visual for visual in visuals if isinstance(visual, str))
    return paths if paths and len(paths) == len(visuals) else None


def name_questions(requests: Sequence[Request]) -> str:
    """Name the task and the documents of questions of one task, for messages."""
    return f"task {requests[0].task}, document {', '.join(str(request.document) for request in requests)}"
