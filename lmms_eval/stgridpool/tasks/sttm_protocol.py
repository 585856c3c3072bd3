"""The prompt and the parser that STTM was evaluated with, for the task files in ``custom_tasks/sttm/``.

All six benchmarks have the same prompt. The parser reproduces the faults of the released one, so that results can be
compared with the published numbers. An answer that cannot be parsed, or is empty, is wrong. If the published evaluation
groups the questions, each group has a metric ``accuracy_<group>`` in addition to ``accuracy``; all range from 0 to 100.

Source: the evaluation of STTM (https://github.com/HYUNJS/STTM); the prompt is Video-MME's.
"""

# ruff: noqa: ARG001 - lmms-eval passes its settings to every doc_to_text, even if the prompt has none

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lmms_eval_stgridpool.tasks.local import NO_ANSWER

LETTERS = "ABCDEF"
LEAD_INS = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",  # two phrases, joined by a comma that is missing in the release
    "Best answer:Best option:",  # so that "Best answer: C" is read as B
    "Answer:",
    "Option:",
)
"""Phrases that are removed from an answer before the parser looks for a letter."""
MLVU_OPTION = re.compile(r"\s*\n\([A-Z]\) *")


def parse_answer(text: str, letters: str) -> str:
    """Find the first capital letter among `letters` anywhere in an answer: "Different" is D.

    Args:
        text: The model's answer.
        letters: The letters of this benchmark's options.

    Returns:
        The letter; "" if there is none. Like the released parser, it also returns "" for more than ten words without
        any of A to E, which matters only for LongVideoBench, where F is an option, too.
    """
    for phrase in LEAD_INS:
        text = text.replace(phrase, "")
    if len(text.split()) > 10 and not re.search("[ABCDE]", text):
        return ""
    return next((character for character in text if character in letters), "")


def prompt(question: str, options: Sequence[str]) -> str:
    """Build the prompt of Video-MME, with one letter per option.

    Args:
        question: The question.
        options: At least 3 options, each with its letter.
    """
    *letters, last = tuple(LETTERS[: len(options)])
    instruction = (
        "Select the best answer to the following multiple-choice question based on the video and the subtitles. "
        f"Respond with only the letter ({', '.join(letters)}, or {last}) of the correct option."
    )
    return "\n".join([instruction, question, *options, "The best answer is:"])


def videomme_doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any]) -> str:
    """Build the prompt of a Video-MME question, whose options include their letters."""
    return prompt(doc["question"], doc["options"])


def videomme_process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Score a Video-MME answer, grouped by the length of the video and by the kind of question."""
    letter = parse_answer(results[0], "ABCD")
    return _scored(letter, doc["answer"], doc["videoID"], (doc["duration"], doc["task_type"]))


def vnbench_doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any]) -> str:
    """Build the prompt of one try of VNBench; as in the release, each option ends with a full stop."""
    return prompt(doc["question"], [f"{option}." for option in _with_letters(doc["options"])])


def vnbench_process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Score one try of VNBench for the plain and the circular accuracy, grouped by the kind of needle."""
    letter = parse_answer(results[0], "ABCD")
    scored = _scored(letter, doc["gt_option"], doc["video"], (doc["type"],), question=doc["question"])
    return scored | {"vnbench_circular": scored["accuracy"]}


def mlvu_doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any]) -> str:
    """Build the prompt of an MLVU question, whose text includes the options as "(A) ...".

    Raises:
        ValueError: If the text has no options.
    """
    question, *options = MLVU_OPTION.split(doc["question"].strip())
    if not options:
        raise ValueError(f"no options such as '(A) ...' in the MLVU question {doc['question']!r}")
    return prompt(question, _with_letters(options))


def mlvu_process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Score an MLVU answer, grouped by the kind of question, and for the stock metric, the mean over these groups."""
    letter, kind = parse_answer(results[0], "ABCD"), doc["task_type"]
    scored = _scored(letter, doc["answer"], doc["video_name"], (kind,), task_type=kind)
    return scored | {"mlvu_percetion_score": scored["accuracy"]}


def nextqa_doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any]) -> str:
    """Build the prompt of a NExT-QA question with its five options."""
    return prompt(doc["question"].strip(), _with_letters([doc[f"a{index}"].strip() for index in range(5)]))


def nextqa_process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Score a NExT-QA answer, grouped by the kind of question, such as CW."""
    letter = parse_answer(results[0], "ABCDE")
    return _scored(letter, LETTERS[int(doc["answer"])], str(doc["video"]), (doc["type"],))


def egoschema_doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any]) -> str:
    """Build the prompt of an EgoSchema question, whose options include their letters."""
    return prompt(doc["question"], doc["option"])


def egoschema_process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Score an EgoSchema answer, and add its index, 0 to 4 or -1 for none, to a submission."""
    letter = parse_answer(results[0], "ABCDE")
    index = LETTERS.index(letter) if letter else NO_ANSWER
    scored = _scored(str(index), str(doc["answer"]), doc["video_idx"])
    return scored | {"answers_in_submission": {doc["video_idx"]: index}}


def longvideobench_doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any]) -> str:
    """Build the prompt of a LongVideoBench question with its three to five options, but without subtitles."""
    options = [doc[f"option{index}"] for index in range(5)]
    return prompt(doc["question"], _with_letters([option for option in options if option != "N/A"]))


def longvideobench_process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Score a LongVideoBench answer, grouped by the length of the video in seconds and by the kind of question."""
    letter = parse_answer(results[0], LETTERS)
    groups = (doc["duration_group"], doc["question_category"])
    return _scored(letter, LETTERS[doc["correct_choice"]], doc["video_path"], groups)


def _with_letters(options: Sequence[str]) -> list[str]:
    return [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]


def _scored(given: str, right: str, video: str, groups: Sequence[Any] = (), **facts: str) -> dict[str, Any]:
    """Return the same facts for the accuracy over all questions and over each group of the question."""
    facts |= {"pred_answer": given, "answer": right, "videoID": video}
    scored = {"score": float(given == right), **facts}
    names = ("accuracy", *(f"accuracy_{str(group).replace(' ', '_')}" for group in groups))
    return dict.fromkeys(names, scored)
