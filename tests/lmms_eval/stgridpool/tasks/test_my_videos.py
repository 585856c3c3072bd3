"""The task of a user's own table: prompts, scores, and the questions that lmms-eval builds from it."""

import json
import re

import pytest
from lmms_eval.tasks import get_task_dict

from lmms_eval_stgridpool.questions.task_videos import videos_of_tasks
from lmms_eval_stgridpool.run.offline_tasks import task_manager
from lmms_eval_stgridpool.run.table_tasks import with_tables
from lmms_eval_stgridpool.tasks.my_videos import average, doc_to_text, process_results

WORDS = {"pre_prompt": "<", "post_prompt": ">"}
DOC = {"video": "v", "question": "Which?", "options": ["red", "dark blue"], "answer": "B", "category": "c"}


def score(doc, answer):
    [(metric, entry)] = process_results(DOC | {"labelled": True} | doc, [answer]).items()
    return metric, entry.get("score"), entry["pred_answer"]


def test_options_get_letters():
    assert doc_to_text(DOC, WORDS) == "<Which?\nA. red\nB. dark blue>"
    assert doc_to_text(DOC | {"options": []}, WORDS) == "Which?"


@pytest.mark.parametrize(
    ("answer", "right", "read"),
    [
        ("B", 1, "B"),
        ("The answer is (B).", 1, "B"),
        ("Dark blue.", 1, "B"),
        ("A. red", 0, "A"),
        ("C", 0, ""),
        ("", 0, ""),
        ("  ", 0, ""),
    ],
)
def test_letters_and_options_are_read(answer, right, read):
    assert score({}, answer) == ("accuracy", right, read)


@pytest.mark.parametrize(
    ("answer", "right"), [("No!", 1), ("no, it is not", 1), ("I do not know", 0), ("yes", 0), ("", 0)]
)
def test_without_options_the_words_must_occur(answer, right):
    assert score({"options": [], "answer": "no"}, answer) == ("accuracy", right, answer)


def test_questions_without_a_known_answer_have_no_score():
    assert score({"answer": ""}, "B") == ("not_scored", None, "B")
    assert score({"answer": "", "labelled": False}, "B") == ("answered", 1, "B")
    assert score({"answer": "", "labelled": False}, "") == ("answered", 0, "")
    assert average([{"score": 1.0}, {"score": 0.0}]) == 0.5


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{key: DOC[key] for key in ("question", "options", "answer")} | {"video": f"v{n}.mp4"} for n in range(2)]
    rows.append({"video": "v0.mp4", "question": "Why?"})
    (tmp_path / "my clips.json").write_text(json.dumps(rows))
    return tmp_path / "my clips.json"


def test_lmms_eval_asks_the_questions_of_a_table(table):
    names, folders = with_tables("my clips.json")
    [name] = names
    assert re.fullmatch("my_videos_my_clips_[0-9a-f]{6}", name)
    manager = task_manager(names, folders)
    assert [path.name for path in videos_of_tasks(names, manager)] == ["v0.mp4", "v1.mp4", "v0.mp4"]
    task = get_task_dict(names, manager, "simple")[names[0]]
    task.build_all_requests()
    contexts = [instance.args[0] for instance in task.instances]
    choice = "Which?\nA. red\nB. dark blue\nAnswer with the option's letter from the given choices directly."
    assert contexts == [choice, choice, "Why?"]
    assert task.process_results(task.eval_docs[1], ["B"])["accuracy"]["score"] == 1
    assert task.config.task == names[0]


def test_tables_of_one_name_in_two_folders_are_two_tasks(table):
    (table.parent / "other").mkdir()
    (table.parent / "other" / table.name).write_text(table.read_text())
    names, folders = with_tables("my clips.json,other/my clips.json")
    assert len(set(names)) == len(set(folders)) == 2
    assert with_tables(str(table))[0] == names[:1]


def test_the_task_without_a_table_of_its_own_reads_the_data_folder(table):
    folder = table.parent / "data" / "my_videos"
    folder.mkdir(parents=True)
    table.rename(folder / "table.json")
    names, folders = with_tables("my_videos")
    assert (names, folders) == (["my_videos"], [])
    assert videos_of_tasks(names, task_manager(names)) == [
        folder.relative_to(table.parent) / f"v{n}.mp4" for n in (0, 1, 0)
    ]
