"""VNBench: needles in a video haystack; each question is asked four times with its options rotated.

There are two metrics: the accuracy over all tries, which STTM's paper reports, and the benchmark's own circular
accuracy, which counts a question only if all its tries are right.

Source: VNBench (https://github.com/joez17/VideoNIAH), for its fields and its metric; the prompt is Video-MME's.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer
from lmms_eval.tasks.videomme.utils import videomme_doc_to_text

LETTERS = ("A", "B", "C", "D")


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, str]) -> str:
    """Put the question and its four options into the prompt of Video-MME.

    Args:
        doc: One try.
        lmms_eval_specific_kwargs: ``post_prompt``, which ends the prompt.
    """
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, doc["options"], strict=True)]
    question = {"question": doc["question"], "options": options}
    text: str = videomme_doc_to_text(question, lmms_eval_specific_kwargs)
    return text


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parse one answer like those of Video-MME; an empty answer is wrong.

    Args:
        doc: One try.
        results: A list with one answer.

    Returns:
        The same facts for both metrics: ``score`` 0 or 1, the parsed letter, and the fields by which tries are grouped.
    """
    letter = extract_mcq_answer(results[0], choices=list(LETTERS)) if results[0].strip() else ""
    facts = {
        "score": float(letter == doc["gt_option"]),
        "pred_answer": letter,
        "answer": doc["gt_option"],
        "videoID": doc["video"],
        "question": doc["question"],
        "try": doc["try"],
        "type": doc["type"],
    }
    return {"vnbench_accuracy": facts, "vnbench_circular": facts}


def aggregate_accuracy(results: Sequence[Mapping[str, Any]]) -> float:
    """Compute the percentage of tries that are right, 0 to 100."""
    return float(100 * sum(result["score"] for result in results) / len(results))


def aggregate_circular(results: Sequence[Mapping[str, Any]]) -> float:
    """Compute the percentage of questions whose tries are all right, 0 to 100."""
    tries = defaultdict(list)
    for result in results:
        tries[result["videoID"], result["question"]].append(result["score"])
    return float(100 * sum(min(scores) for scores in tries.values()) / len(tries))
