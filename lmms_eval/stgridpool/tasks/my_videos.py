"""The task ``my_videos``: questions of a user's own table, see `questions.video_table`."""

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from datasets import Dataset, DatasetDict
from lmms_eval.api.task import ConfigurableTask
from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer

from lmms_eval_stgridpool.questions.video_table import read_table, table_file

Doc = Mapping[str, Any]
SPLIT = "test"
NOT_SCORED = "not_scored"
"""Name under which a sample shows the answer to a question whose right answer is not known; it is not a metric."""


class TableTask(ConfigurableTask):
    """A task whose table is read by `read_table`: texts stay texts, and errors name the row.

    Args:
        config: The task file; its ``dataset_path`` is the table, or a folder with one table.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config={name: value for name, value in config.items() if name != "class"})

    def download(  # type: ignore[override]  # as ConfigurableTask, unlike its base
        self, dataset_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """Read the table; called by lmms-eval.

        Args:
            dataset_kwargs: Must be None: the table needs no options.

        Raises:
            FileNotFoundError: If there is no table.
            ValueError: If there are options, or the table is not as it must be.
        """
        if dataset_kwargs:
            raise ValueError(f"a table takes no dataset_kwargs, got {sorted(dataset_kwargs)}")
        questions = read_table(table_file(self.config.dataset_path))
        labelled = any(question.answer for question in questions)
        rows = [asdict(question) | {"labelled": labelled} for question in questions]
        self.dataset = DatasetDict({SPLIT: Dataset.from_list(rows)})
        self.dataset_no_image = self.dataset


def doc_to_visual(doc: Doc) -> list[str]:
    """Return the path of the video in a list."""
    return [doc["video"]]


def doc_to_text(doc: Doc, lmms_eval_specific_kwargs: Mapping[str, str]) -> str:
    """Write a question with its options, if it has any.

    Args:
        doc: One question.
        lmms_eval_specific_kwargs: ``pre_prompt`` and ``post_prompt``, which begin and end a question with options.
    """
    if not doc["options"]:
        return str(doc["question"])
    options = [f"{letter}. {text}" for letter, text in zip(string.ascii_uppercase, doc["options"], strict=False)]
    prompt = "\n".join([doc["question"], *options])
    return f"{lmms_eval_specific_kwargs['pre_prompt']}{prompt}{lmms_eval_specific_kwargs['post_prompt']}"


def process_results(doc: Doc, results: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Score one answer.

    With options, the letter that lmms-eval's parser reads must be the right one, or the answer the right option's text.
    Without options, the words of the right answer must occur in the answer, in a row, whatever their case.

    Args:
        doc: One question.
        results: A list with one answer; an empty one is wrong.

    Returns:
        ``accuracy`` where the right answer is known, ``answered`` if it is not known in any row of the table, else
        `NOT_SCORED`, which is not a metric: the answer as it was read, the right one, the video, the category, and for
        a metric ``score`` 0 or 1.
    """
    read = read_answer(results[0], doc["options"])
    known = {"videoID": doc["video"], "category": doc["category"], "answer": doc["answer"], "pred_answer": read}
    if not doc["labelled"]:
        return {"answered": {"score": float(bool(read)), **known}}
    if not doc["answer"]:
        return {NOT_SCORED: known}
    is_right = read == doc["answer"] if doc["options"] else _contains(read, doc["answer"])
    return {"accuracy": {"score": float(is_right), **known}}


def read_answer(answer: str, options: Sequence[str]) -> str:
    """Return the letter that an answer names, "" if none; or the answer itself if there are no options."""
    if not options or not answer.strip():
        return answer.strip()
    letters = list(string.ascii_uppercase[: len(options)])
    texts = [_words(option) for option in options]
    if _words(answer) in texts:
        return letters[texts.index(_words(answer))]
    letter: str = extract_mcq_answer(answer, letters)
    return letter


def average(results: Sequence[Doc]) -> float:
    """Return the mean score, 0 to 1."""
    return float(sum(result["score"] for result in results) / len(results))


def _contains(answer: str, right: str) -> bool:
    return f" {' '.join(_words(right))} " in f" {' '.join(_words(answer))} "


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
