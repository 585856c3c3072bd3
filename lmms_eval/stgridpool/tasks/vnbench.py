"""VNBench: needles in a video haystack, each question asked four times with the options turned.

Two metrics: the plain accuracy over all tries, which STTM's paper reports, and the benchmark's own circular one, which
counts a needle only if all its tries are right.

Source: VNBench (https://github.com/joez17/VideoNIAH), its fields and its metric; the prompt is Video-MME's.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer
from lmms_eval.tasks.videomme.utils import videomme_doc_to_text

LETTERS = ("A", "B", "C", "D")


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, str]) -> str:
    """The question and its four options, in the prompt of Video-MME.

    Args:
        doc: One try.
        lmms_eval_specific_kwargs: ``post_prompt``, put behind.
    """
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, doc["options"], strict=True)]
    return videomme_doc_to_text({"question": doc["question"], "options": options}, lmms_eval_specific_kwargs)


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parse one answer as Video-MME's are parsed; an empty one is wrong.

    Args:
        doc: One try.
        results: The answer, alone in a list.

    Returns:
        The same facts for both metrics: ``score`` 0 or 1, the parsed letter, and what the tries are grouped by.
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
    """Share of the tries that are right, 0 to 100."""
    return 100 * sum(result["score"] for result in results) / len(results)


def aggregate_circular(results: Sequence[Mapping[str, Any]]) -> float:
    """Share of the questions all of whose tries are right, 0 to 100."""
    tries = defaultdict(list)
    for result in results:
        tries[result["videoID"], result["question"]].append(result["score"])
    return 100 * sum(min(scores) for scores in tries.values()) / len(tries)
