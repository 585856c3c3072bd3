"""Which missing videos end a run before it starts, and which only cause a warning."""

import json
import math

import pytest

from lmms_eval_stgridpool.run.task_checks import ALL, Asked, check_table, check_videos
from lmms_eval_stgridpool.run.task_files import TaskFile

MAX_FAILED = 0.5


@pytest.fixture
def make_task(tmp_path):
    """Function that writes the table of a task with videos on disk, some of which are missing."""

    def make(name, there, missing, **settings):
        folder = tmp_path / name
        folder.mkdir()
        names = [f"{index}.mp4" for index in range(there + missing)]
        for video in names[:there]:
            (folder / video).touch()
        (folder / "test.json").write_text(json.dumps([{"video": video} for video in names]))
        given = {"default": {"video_dir": str(folder), "video_field": "video"}}
        settings |= {"dataset_path": str(folder), "lmms_eval_specific_kwargs": given}
        settings["doc_to_visual"] = "lmms_eval_stgridpool.tasks.local.doc_to_visual"
        task = TaskFile(name, folder / "task.yaml", settings)
        return task, check_table(task)

    return make


def test_the_questions_of_all_tasks_count_together(make_task):
    """As when the run ends: one of MVBench's tasks may lack all its videos."""
    tasks = [make_task("lost", there=0, missing=2), make_task("good", there=2, missing=0)]
    [warning] = check_videos(tasks, ALL, MAX_FAILED)
    assert warning.startswith("lost: 2 of 2 videos are missing")
    tasks.append(make_task("half", there=1, missing=1))
    with pytest.raises(ValueError, match=r"^lost: 2 of 2 videos are missing, .*; videos of half are missing, too$"):
        check_videos(tasks, ALL, 0.49)  # 3 of 6
    assert len(check_videos(tasks, ALL, 0.5)) == 2


def test_a_run_with_questions_that_cannot_be_counted_is_not_refused(make_task):
    lost = make_task("lost", there=0, missing=2)
    filtered = make_task("filtered", there=0, missing=2, process_docs="mine.only_some")
    with pytest.raises(ValueError, match="lost: 2 of 2"):
        check_videos([lost], ALL, MAX_FAILED)
    [warning] = check_videos([lost, filtered], ALL, MAX_FAILED)
    assert warning.startswith("lost")
    assert check_videos([filtered], ALL, MAX_FAILED) == ()


@pytest.mark.parametrize(
    ("limit", "offset", "rows"),
    [(None, 0, 5), (-1, 1, 4), (5.0, 0, 5), (1e9, 0, 5), (2, 0, 2), (0.5, 0, 3), (0.01, 0, 1), (2, 4, 1)],
)
def test_rows_are_counted_as_lmms_eval_does(limit, offset, rows):
    """See lmms_eval.evaluator_utils.get_sample_size."""
    assert Asked(limit, offset).of(list(range(5))) == list(range(offset, offset + rows))


@pytest.mark.parametrize("limit", [math.nan, math.inf, -math.inf, 0, -0.5, -3, 1.5, 2.5, 1e9 + 1, 1e30])
def test_a_limit_that_lmms_eval_would_misread_is_refused(limit):
    expected = f"--limit must be a whole number of questions from 1 to 1000000000, a share of them .*, got {limit:g}$"
    with pytest.raises(ValueError, match=expected.replace("+", r"\+")):
        Asked(limit)


@pytest.mark.parametrize("offset", [-1, 10**9 + 1])
def test_an_offset_has_a_range(offset):
    with pytest.raises(ValueError, match=f"^--offset must be a whole number from 0 to 1000000000, got {offset}$"):
        Asked(None, offset)


def test_a_share_is_for_one_task(make_task):
    """lmms-eval 0.7.3 asks as many questions of each task as that share of the first."""
    tasks = [make_task(name, there=2, missing=0) for name in ("one", "two")]
    with pytest.raises(ValueError, match=r"^--limit 0.5 is a share of the first of 2 tasks, .* give a whole number"):
        check_videos(tasks, Asked(0.5), MAX_FAILED)
    assert check_videos(tasks[:1], Asked(0.5), MAX_FAILED) == ()
    assert check_videos(tasks, Asked(1), MAX_FAILED) == ()
