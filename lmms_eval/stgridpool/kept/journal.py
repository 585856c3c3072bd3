"""The journal of a run: answers of earlier runs that need not be computed again, and the answers of this run.

`JournalFiles` stores them; the name of a question is a digest of everything that its answer depends on.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from loguru import logger

from lmms_eval_stgridpool.kept.identity import answer_key, code_version, video_identity
from lmms_eval_stgridpool.kept.journal_files import JournalFiles, Kept
from lmms_eval_stgridpool.kept.sample_facts import Answered, SampleFacts
from lmms_eval_stgridpool.questions.requests import Request
from lmms_eval_stgridpool.run.arguments import Arguments
from stgridpool import Compressor
from stgridpool.elsewhere import foreign_code

OF_SETUP = (
    *("checkpoint", "checkpoint_version", "compressor", "compressor_files"),
    *("mm_newline_position", "dtype", "attn_implementation"),
)
"""Parts of a run's setup that its answers depend on; the setup says what runs, the arguments what was asked for."""

INDECISIVE = (
    *("pretrained", "compressor", "compressor_args", "mm_newline_position", "torch_dtype", "attn_implementation"),
    *("model_name", "batch_size", "device", "device_map", "vision_batch_size", "share_prefix", "questions_per_batch"),
    *("decode_threads", "decode_timeout_s", "decode_memory_gb", "prefetch", "barrier_timeout_s"),
    *("feature_cache", "feature_cache_gb", "features_of_missing_videos", "reuse_frames", "pool_head", "text_tower"),
    *("resume_dir", "resume_any_version", "max_failed", "answer_without_visuals", "allow_use_cache"),
)
"""Arguments that no answer depends on, or whose effect `OF_SETUP` covers. If any other changes, so do the names."""


class Journal:
    """Looks answers up in the journal, and adds new ones.

    Args:
        arguments: The arguments of the run; if `resume_dir` is None, the journal stays empty.
        rank: This rank.
        setup: The settings of the run, see `describe`.
        tower: A digest of the weights of the vision tower, its pooling head and its text half, which may come from
            outside the checkpoint.
        compressor: The compressor, where it is not the one of the arguments, as in a sweep.

    Attributes:
        is_on: Whether answers are kept.
        taken_of_other_code: Number of answers taken that other code had computed.

    Raises:
        OSError: If the folder cannot be made, read or written.
    """

    def __init__(
        self,
        arguments: Arguments,
        rank: int,
        setup: Mapping[str, Any],
        tower: str | None = None,
        compressor: Compressor | None = None,
    ) -> None:
        self.is_on = arguments.resume_dir is not None
        self.taken_of_other_code = 0
        self._takes_blind = arguments.answer_without_visuals
        self._files: JournalFiles | None = None
        if arguments.resume_dir is not None:
            code = code_version(*foreign_code(compressor or arguments.build_compressor()))
            self._files = JournalFiles(arguments.resume_dir, rank, code, arguments.resume_any_version)
        own = {argument.name: getattr(arguments, argument.name) for argument in fields(arguments)}
        self._setup = {name: value for name, value in own.items() if name not in INDECISIVE}
        self._setup |= {name: setup.get(name) for name in OF_SETUP} | {"tower": tower}
        self._asked: Counter[str] = Counter()

    def name(self, request: Request, videos: Sequence[str] | None, pictures: Sequence[object] = ()) -> str:
        """Name a question: its `key`, and a number, because a run may ask a question several times.

        Args:
            request: See `key`.
            videos: See `key`.
            pictures: See `key`.
        """
        key = self.key(request, videos, pictures)
        self._asked[key] += 1
        return f"{key}-{self._asked[key]}"

    def key(self, request: Request, videos: Sequence[str] | None, pictures: Sequence[object] = ()) -> str:
        """Compute a digest of everything that the answer to a question depends on.

        Args:
            request: The question.
            videos: Paths of its videos; if a file has changed, the key differs.
            pictures: The `visual_identity` of each picture that it shows instead of videos.
        """
        return answer_key(
            {
                "setup": self._setup,
                "kind": request.kind,
                "task": request.task,
                "document": request.document,
                "context": request.context,
                "arguments": request.argument,
                "videos": [video_identity(video) for video in videos or ()],
                "pictures": pictures,
            }
        )

    def get(self, name: str, request: Request) -> Answered | None:
        """Look a question's answer up.

        Returns:
            The answer; None if the journal has none, or if it was computed without visuals and this run does not allow
            that.
        """
        found = self._look_up(name, request)
        if found is None:
            return None
        result, kept = found
        self.taken_of_other_code += kept.is_of_other_code
        return result

    def has(self, name: str, request: Request) -> bool:
        """Return whether `get` would find an answer."""
        return self._look_up(name, request) is not None

    def _look_up(self, name: str, request: Request) -> tuple[Answered, Kept] | None:
        kept = None if self._files is None else self._files.get(name)
        if kept is None:
            return None
        try:
            result = _result(kept, request.kind)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            logger.warning(f"{kept.place}: malformed answer, its question is asked again: {error!r}")
            return None
        if result.facts.is_blind and not self._takes_blind:
            return None
        return result, kept

    def keep(self, name: str, result: Answered) -> None:
        """Write an answer to the journal, unless the question failed: the next run then asks it again."""
        if self._files is not None and result.facts.failure is None:
            self._files.add(name, {"answer": result.answer, "facts": asdict(result.facts)})

    def finish(self) -> int:
        """Make a last attempt to write the answers that could not be written before.

        Returns:
            The number of answers that are missing from the journal.
        """
        waiting = 0 if self._files is None else self._files.flush()
        if self._files is not None and waiting:
            logger.error(f"{waiting} answers are missing from {self._files.folder}, which could not be written")
        return waiting


def _result(kept: Kept, kind: str) -> Answered:
    """Read a kept answer.

    Raises:
        TypeError, ValueError, KeyError, AttributeError: If it does not have the form that `Journal.keep` writes.
    """
    answer, facts = kept.answer["answer"], kept.answer["facts"]
    if kind == "loglikelihood":
        loss, is_greedy = answer
        is_right = isinstance(loss, float) and isinstance(is_greedy, bool)
        answer = (loss, is_greedy)
    elif kind == "generate_until":
        is_right = isinstance(answer, str)
    else:
        is_right = isinstance(answer, list)
    if not is_right:
        raise TypeError(f"{answer!r} is not an answer to a {kind} request")
    return Answered(answer, SampleFacts.from_dict(facts))
