"""What each local task reads from answers that are no plain letter: the table in custom_tasks/README.md."""

import importlib
import random
import re

import pytest

from lmms_eval_stgridpool.tasks.local import LETTER_READ

ANSWERS = [
    "D",
    "d",
    "(D)",
    "D.",
    "**D**",
    "Answer: **D**",
    "The best answer is: D",
    "The answer is (D).",
    "Option D",
    "D. fig",
    "fig",
    "A or D",
    "Not A but D",
    "A fig",
    "Different",
    "I cannot say.",
    "!!!!",
    "",
]
WORDS = ["cat", "dog", "owl", "fig"]
LETTERED = [f"{letter}. {word}" for letter, word in zip("ABCD", WORDS, strict=True)]
VIDEOMME = {"duration": "short", "domain": "Knowledge", "sub_category": "Astronomy", "task_type": "Counting Problem"}
VIDEOMME |= {"videoID": "v", "question_id": "q", "question": "Which?", "options": LETTERED, "answer": "D"}
LONGVIDEOBENCH = {f"option{index}": word for index, word in enumerate([*WORDS, "N/A"])} | {"video_path": "v.mp4"}
LONGVIDEOBENCH |= {"id": "q", "duration_group": 15, "question_category": "S2E", "correct_choice": 3}
TEMPCOMPASS = {"video_id": "v", "question": "Which?\n" + "\n".join(LETTERED), "answer": "D. fig", "dim": "speed"}
# By task: a question whose answer is D, "fig"; the metric, and where a sample shows the letter that was read.
TASKS = {
    "videomme_local": (VIDEOMME, "videomme_perception_score", "pred_answer"),
    "longvideobench_val_v_local": (LONGVIDEOBENCH, "lvb_acc", "parsed_pred"),
    "egoschema_subset_local": (
        {"video_idx": "v", "question_idx": "q", "option": [*LETTERED, "E. ox"], "answer": "3"},
        "score",
        LETTER_READ,
    ),
    "mlvu_dev_local": (
        {"question": "Which?", "task_type": "ego", "answer": "D"},
        "mlvu_percetion_score",
        "pred_answer",
    ),
    "nextqa_mc_test_local": (
        {f"a{index}": word for index, word in enumerate([*WORDS, "ox"])} | {"answer": 3},
        "exact_match",
        LETTER_READ,
    ),
    "mvbench_local": ({"candidates": WORDS, "answer": "fig"}, "mvbench_accuracy", LETTER_READ),
    "vnbench_local": (
        {"gt_option": "D", "video": "v.mp4", "question": "Which?", "try": 0, "type": "ret_edit1"},
        "vnbench_accuracy",
        "pred_answer",
    ),
    "tempcompass_multi_choice_local": (TEMPCOMPASS, "avg_accuracy", LETTER_READ),
    "the tasks of sttm/": (VIDEOMME, "accuracy", "pred_answer"),
}
FILES = {"mvbench_local": "mvbench_local/_template", "the tasks of sttm/": "sttm/videomme_sttm.yaml"}


def processor(custom_tasks, task):
    """The function that a task file names."""
    text = (custom_tasks / FILES.get(task, f"{task}.yaml")).read_text()
    module, _, name = re.search(r"^process_results: !function (\S+)", text, flags=re.MULTILINE)[1].rpartition(".")
    return getattr(importlib.import_module(module), name)


def is_right(scored):
    """Whether the metric of one question counts it."""
    if not isinstance(scored, dict):
        return bool(scored)
    for score in ("score", "rating"):
        if score in scored:
            return scored[score] == 1
    given, right = ("parsed_pred", "answer") if "parsed_pred" in scored else ("pred_answer", "answer")
    if "pred" in scored:
        return str(scored["pred"]) == str(scored["ground_truth"])
    return scored[given] == scored[right]


def cell(process, row, metric, place, answer, guesses):
    """What is read from an answer: a letter, "guess", or a dash for nothing."""
    del guesses[:]
    found = process(row, [answer])
    letter = found[place] if place in found else found[metric][place]
    if guesses and letter:
        return "guess"
    assert is_right(found[metric]) == (letter == "D")
    return letter or "-"


@pytest.fixture
def guesses(monkeypatch):
    """The random choices of lmms-eval's parsers, each of which takes the first option here."""
    made = []
    monkeypatch.setattr(random, "choice", lambda options: made.append(options) or options[0])
    return made


def test_the_table_says_what_is_read(custom_tasks, guesses):
    lines = ["| answer | " + " | ".join(f"`{task}`" for task in TASKS) + " |", "|---" * (len(TASKS) + 1) + "|"]
    processors = {task: processor(custom_tasks, task) for task in TASKS}
    for answer in ANSWERS:
        cells = [cell(processors[task], *TASKS[task], answer, guesses) for task in TASKS]
        shown = f"`{answer}`" if answer else "(empty)"
        lines.append(f"| {shown} | " + " | ".join(cells) + " |")
    table = "\n".join(lines).replace("`the tasks of sttm/`", "the tasks of `sttm/`")
    assert table in (custom_tasks / "README.md").read_text(), f"the table must be:\n{table}"
