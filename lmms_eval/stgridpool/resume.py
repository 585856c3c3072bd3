"""Which questions an earlier run has answered."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from lmms_eval.api.instance import GenerationResult

from lmms_eval_stgridpool.journal import Journal, answer_key, video_identity
from lmms_eval_stgridpool.record import SampleFacts
from lmms_eval_stgridpool.requests import Request

DECISIVE = (
    "checkpoint",
    "checkpoint_version",
    "compressor",
    "mm_newline_position",
    "max_frames_num",
    "fps",
    "force_sample",
    "add_time_instruction",
    "conv_template",
    "video_decode_backend",
    "dtype",
    "attn_implementation",
    "deterministic",
)
"""What of a run's setup its answers depend on."""


class Resume:
    """Takes answers out of the journal, and puts new ones in.

    Args:
        folder: The journal's folder; None keeps and knows nothing.
        rank: Number of this process.
        setup: What is run, as `describe` says it.
    """

    def __init__(self, folder: str | None, rank: int, setup: Mapping[str, Any]) -> None:
        self._journal = None if folder is None else Journal(folder, rank)
        self._setup = {name: setup[name] for name in DECISIVE}
        self._asked: Counter[str] = Counter()

    def name(self, request: Request, videos: Sequence[str] | None) -> str:
        """A question's name in the journal; it ends in a number, since a run may ask a question several times.

        Args:
            request: The question.
            videos: Paths of its videos; a file that has changed makes it another question.
        """
        key = answer_key(
            {
                "setup": self._setup,
                "kind": request.kind,
                "task": request.task,
                "document": request.document,
                "context": request.context,
                "arguments": request.argument,
                "videos": [video_identity(video) for video in videos or ()],
            }
        )
        self._asked[key] += 1
        return f"{key}-{self._asked[key]}"

    def get(self, name: str, request: Request) -> GenerationResult | None:
        """The answer that the journal holds, or None."""
        record = None if self._journal is None else self._journal.get(name)
        if record is None:
            return None
        known = {field.name for field in fields(SampleFacts)}  # a journal of another version may hold others
        facts = {fact: value for fact, value in record["facts"].items() if fact in known}
        answer = tuple(record["answer"]) if request.kind == "loglikelihood" else record["answer"]
        return GenerationResult(answer, SampleFacts(**facts))

    def keep(self, name: str, answer: Any, facts: SampleFacts) -> None:
        """Write an answer down; a question that could not be answered is asked again by the next run."""
        if self._journal is not None and facts.failure is None:
            self._journal.add(name, {"answer": answer, "facts": asdict(facts)})
