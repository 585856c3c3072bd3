"""Task files are read as lmms-eval reads them."""

import pytest
from lmms_eval.tasks import TaskManager

from lmms_eval_stgridpool.run.task_files import find_tasks, index_of


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "quiz.yaml").write_text("task: quiz\ntag: quizzes\ninclude: template\n")
    (tmp_path / "template").write_text("test_split: test\ntask: another\n")
    return tmp_path


def test_files_with_another_ending_are_passed_over(folder):
    (folder / "names.yml").write_text("- one\n- two\n")
    assert set(index_of(folder)) == {"quiz", "quizzes"}
    assert [task.settings["test_split"] for task in find_tasks(["quiz"], [folder])] == ["test"]
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    assert set(manager.task_index) == {"quiz", "quizzes"}


@pytest.mark.parametrize(("text", "found"), [("- one\n- two\n", "list"), ("some words\n", "str"), ("", "NoneType")])
def test_what_lmms_eval_cannot_read_is_refused(folder, text, found):
    (folder / "names.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"names\.yaml must hold settings such as task: NAME, got {found}: .* \.yml$"):
        index_of(folder)
    with pytest.raises((AssertionError, AttributeError)):
        TaskManager(include_path=str(folder), include_defaults=False)


def test_a_list_is_not_a_template(folder):
    (folder / "template").write_text("- one\n")
    with pytest.raises(ValueError, match="template must hold settings such as task: NAME, got list"):
        index_of(folder)
