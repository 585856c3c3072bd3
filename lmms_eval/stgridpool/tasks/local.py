"""Functions for the task files in ``custom_tasks/``: where to find the videos, and how to score answers.

Prompts, parsers and metrics are lmms-eval's own if its module can be imported offline. This module has only what must
differ for data on disk: no function ends the process because a file is missing, contacts a server, or guesses if the
model gave no answer. An empty answer means that the video could not be read; it counts as wrong.

Source: the tasks of lmms-eval 0.7.3, https://github.com/EvolvingLMMs-Lab/lmms-eval
"""

import datetime
import json
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loguru import logger as eval_logger

from lmms_eval_stgridpool.questions.local_video import local_video

NO_ANSWER = -1
"""Index that means "no answer" in EgoSchema's results; it is never written to a submission."""
LETTER_READ = "letter_read"
"""Name under which a sample shows the letter that was parsed from an answer, "" if none was; it is not a metric.
Samples of other tasks show the letter in their metric, as ``pred_answer`` or ``parsed_pred``."""


def doc_to_visual(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any]) -> list[str]:
    """Find the video of a question.

    Args:
        doc: One question.
        lmms_eval_specific_kwargs: Fields of the task file: ``video_dir``, the folder of the videos (``~`` is expanded,
            a relative path starts at the working directory), and ``video_field``, the column that names the video,
            with or without a suffix.

    Returns:
        A list with the path of the video. If there is no such file, it is the path at which the video was expected, so
        the model can report which video failed and continue.
    """
    name = str(doc[lmms_eval_specific_kwargs["video_field"]])
    return [str(local_video(lmms_eval_specific_kwargs["video_dir"], name))]


def longvideobench_process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Score one LongVideoBench answer like lmms-eval, but never guess if it is empty.

    Args:
        doc: One question.
        results: A list with one answer.

    Returns:
        ``lvb_acc``: the parsed letter ("" for an empty answer), the right letter and the groups of the question.
    """
    # Imported here because the stock module loads torch and decord, which no other task needs.
    from lmms_eval.tasks.longvideobench.utils import longvideobench_process_results as stock  # noqa: PLC0415

    scored = stock(doc, results)["lvb_acc"]
    return {"lvb_acc": scored if results[0].strip() else {**scored, "parsed_pred": ""}}


def egoschema_process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Parse one EgoSchema answer like lmms-eval, but never guess if it is empty.

    Args:
        doc: One question.
        results: A list with one answer.

    Returns:
        ``score``: predicted and right index; ``answers_in_submission``: index by video id; ``letter_read``, see
        `LETTER_READ`. Indices range from 0 to 4, or are ``NO_ANSWER`` for an empty answer.
    """
    from lmms_eval.tasks.egoschema.utils import egoschema_process_results_generation as stock  # noqa: PLC0415

    index = stock(doc, results)["score"]["pred"] if results[0].strip() else NO_ANSWER
    return {
        "score": {"pred": index, "ground_truth": doc["answer"]},
        "answers_in_submission": {doc["video_idx"]: index},
        LETTER_READ: "" if index == NO_ANSWER else "ABCDE"[index],
    }


def egoschema_write_submission(results: Sequence[Mapping[str, int]], args: Namespace) -> float:
    """Write the answers to a file for ``submit_egoschema.py``, without posting it.

    The file is ``submissions/inference_results_egoschema_MC_<time>.json`` in the run's output folder, the same path and
    format as for lmms-eval's own task. Questions without an answer are left out, and a warning counts them; the server
    will count them as missing.

    Args:
        results: One ``{video id: index}`` per question.
        args: lmms-eval's command line; ``output_path`` is the run's output folder.

    Returns:
        The number of answers in the file. This is not a score: only the server has all labels.
    """
    from lmms_eval.tasks._task_utils.file_utils import generate_submission_file  # noqa: PLC0415

    answers = {video: index for result in results for video, index in result.items()}
    written = {video: index for video, index in answers.items() if index != NO_ANSWER}
    time = datetime.datetime.now().strftime("%Y-%m-%d-%H-%M-%S")
    path = Path(generate_submission_file(f"inference_results_egoschema_MC_{time}.json", args))
    path.write_text(json.dumps(written, indent=4), encoding="utf-8")
    if missing := len(answers) - len(written):
        eval_logger.warning(f"EgoSchema: {missing} of {len(answers)} questions have no answer and are not in the file")
    eval_logger.info(f"EgoSchema: {len(written)} answers written to {path}")
    eval_logger.info(f"To get them scored: python submit_egoschema.py --f {path}")
    return float(len(written))


def mvbench_process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Score one MVBench answer like lmms-eval, and show the letter that it parsed.

    Args:
        doc: One question.
        results: A list with one answer.

    Returns:
        ``mvbench_accuracy``: the answer, the right letter, and ``score`` 0 or 1; ``letter_read``, see `LETTER_READ`.
    """
    from lmms_eval.tasks.mvbench import utils as stock  # noqa: PLC0415

    letters = (letter for letter in "ABCDE" if stock.mcq_acc(letter, results[0]))
    return {**stock.mvbench_process_results(doc, results), LETTER_READ: next(letters, "")}


def mvbench_aggregate_results(results: Sequence[Mapping[str, Any]]) -> float:
    """Average one MVBench subtask over all its questions.

    lmms-eval leaves questions with an empty answer out of the average, which would reward unreadable videos; here they
    count as wrong. If no answer is empty, the two averages agree.

    Args:
        results: One dict per question, with ``score`` 0 or 1.

    Returns:
        Accuracy, 0 to 100.
    """
    return float(100 * sum(result["score"] for result in results) / len(results))


def nextqa_doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, str]) -> str:
    """Put a NExT-QA question and its five options into the same prompt as lmms-eval.

    The stock module is not imported, because it downloads three nltk packages when it is loaded.

    Args:
        doc: One question.
        lmms_eval_specific_kwargs: ``pre_prompt`` and ``post_prompt``, which begin and end the prompt.

    Returns:
        The prompt.
    """
    options = [f"{letter}. {doc[f'a{index}'].strip()}" for index, letter in enumerate("ABCDE")]
    prompt = "\n".join([doc["question"].strip(), *options])
    return f"{lmms_eval_specific_kwargs['pre_prompt']}{prompt}{lmms_eval_specific_kwargs['post_prompt']}"


def nextqa_process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, bool | str]:
    """Score one NExT-QA answer like lmms-eval, but never guess if it is empty.

    Args:
        doc: One question.
        results: A list with one answer.

    Returns:
        ``exact_match``: whether the parsed letter is the right one; ``letter_read``, see `LETTER_READ`.
    """
    # The same parser as in the NExT-QA task, from a module that downloads nothing.
    from lmms_eval.tasks.mmsu.utils import parse_multi_choice_response  # noqa: PLC0415

    options = {letter: doc[f"a{index}"].strip() for index, letter in enumerate("ABCDE")}
    letter = parse_multi_choice_response(results[0], list(options), options) if results[0].strip() else ""
    return {"exact_match": letter == "ABCDE"[doc["answer"]], LETTER_READ: letter}


def tempcompass_doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, str]) -> str:
    """Put a TempCompass question, which includes its options, into the same prompt as lmms-eval.

    The stock module is not imported, because it requires ``HF_HOME`` and is built to call an API.

    Args:
        doc: One question.
        lmms_eval_specific_kwargs: ``pre_prompt`` and ``post_prompt``, which begin and end the prompt.

    Returns:
        The prompt.
    """
    return f"{lmms_eval_specific_kwargs['pre_prompt']}{doc['question']}{lmms_eval_specific_kwargs['post_prompt']}"


def tempcompass_process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Score one TempCompass multiple-choice answer by rules alone.

    An answer matches if it is the complete right option, or a letter A to D, alone or followed by ``.`` or ``)``.
    lmms-eval asks a paid API about every other answer; here it counts as wrong and is marked as unmatched.

    Args:
        doc: One question.
        results: A list with one answer.

    Returns:
        The same dict under ``avg_accuracy`` and under ``<dimension>_accuracy``: ``rating`` 0 or 1, ``match_success``,
        the answer and the question; ``letter_read``, see `LETTER_READ`.
    """
    answer = results[0]
    letter = re.match(r"([A-D])(?:[.)]|\Z)", answer)
    right = answer == doc["answer"] or (letter is not None and letter[1] == doc["answer"][0])
    scored = {
        "video_id": doc["video_id"],
        "question": doc["question"],
        "gt-answer": doc["answer"],
        "video-llm-prediction": answer,
        "match_success": right or letter is not None,
        "rating": int(right),
        "dim": doc["dim"],
    }
    read = letter[1] if letter is not None else doc["answer"][0] if right else ""
    return {"avg_accuracy": scored, f"{doc['dim']}_accuracy": scored, LETTER_READ: read}


def tempcompass_aggregate_rating(results: Sequence[Mapping[str, Any]]) -> float:
    """Average the ratings of one dimension, and warn about answers that match no option.

    Args:
        results: One dict per question, see ``tempcompass_process_results``.

    Returns:
        Accuracy, 0 to 100.
    """
    if unmatched := sum(not result["match_success"] for result in results):
        eval_logger.warning(f"TempCompass: {unmatched} of {len(results)} answers name no option and count as wrong")
    return float(100 * sum(result["rating"] for result in results) / len(results))
