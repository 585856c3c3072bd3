"""What doctor finds in the data of a task."""

import shutil
from pathlib import Path

import pytest
from datasets import Dataset

from lmms_eval_stgridpool.health.task_data import check_task, check_videos, duplicates

ROW = {"duration": "short", "domain": "Knowledge", "sub_category": "Astronomy", "task_type": "Counting Problem"}
ROW |= {"question": "How many?", "options": ["A. 1", "B. 2", "C. 3", "D. 4"], "answer": "B"}


def progress(title, total):
    return lambda amount: None


@pytest.fixture
def videos(tmp_path, write_video, monkeypatch):
    """A folder with Video-MME's layout: two videos, of two questions each, and a file that is not a video."""
    folder = tmp_path / "data" / "videomme"
    (folder / "data").mkdir(parents=True)
    write_video(folder / "data" / "v0.mp4", num_frames=12)
    write_video(folder / "data" / "v1.mp4", num_frames=24)
    (folder / "data" / "v2.mp4").write_bytes(b"no video")
    rows = [ROW | {"videoID": f"v{index // 2}", "question_id": f"q{index}"} for index in range(6)]
    Dataset.from_list(rows).to_parquet(folder / "test-00000-of-00001.parquet")
    monkeypatch.chdir(tmp_path)
    return folder / "data"


def states(found):
    return [(one.subject, one.state) for one in found]


def test_an_unreadable_video_is_named(videos):
    found = list(check_task("videomme_local", [], progress))
    assert states(found) == [("task", "ok"), ("videos", "warning"), ("videos", "ok")]
    assert found[0].text == "videomme_local: 6 questions about 3 videos"
    assert "v2.mp4" in found[1].text


def test_videos_need_not_be_opened(videos):
    assert states(check_task("videomme_local", [], None)) == [("task", "ok"), ("videos", "ok")]


def test_missing_videos_are_a_problem_where_most_are_missing(videos):
    (videos / "v0.mp4").unlink()
    [_, missing] = check_task("videomme_local", [], None)
    assert missing.state == "warning"
    assert missing.text == "1 of 3 are missing: data/videomme/data/v0.mp4"
    (videos / "v1.mp4").unlink()
    assert states(check_task("videomme_local", [], None)) == [("task", "ok"), ("videos", "problem")]


def test_the_same_file_under_two_names_is_found(videos):
    shutil.copy(videos / "v0.mp4", videos / "copy.mp4")
    assert duplicates(sorted(videos.iterdir())) == [[videos / "copy.mp4", videos / "v0.mp4"]]
    found = list(check_videos(sorted(videos.iterdir()), None))
    assert "the same file" in found[0].text


def test_a_missing_table_is_a_problem_with_the_place_to_get_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [found] = check_task("videomme_local", [], None)
    assert found.state == "problem"
    assert "reads its table from ./data/videomme" in found.text
    assert "hf download lmms-eval/Video-MME --repo-type dataset --local-dir data/videomme" in found.repair
    [found] = check_task("mvbench_local", [], None)  # a group
    assert "hf download OpenGVLab/MVBench --revision video" in found.repair


def test_a_table_without_a_column_is_a_problem(videos):
    rows = [{name: value for name, value in ROW.items() if name != "question"} | {"videoID": "v0", "question_id": "q"}]
    Dataset.from_list(rows).to_parquet(videos.parent / "test-00000-of-00001.parquet")
    [found] = check_task("videomme_local", [], None)
    assert found.state == "problem"
    assert "question" in found.text


def test_an_unknown_task_is_a_problem():
    [found] = check_task("videome_local", [], None)
    assert found.text.startswith("there is no task 'videome_local', did you mean 'videomme_local'?")


def test_the_task_files_are_found():
    from lmms_eval_stgridpool.run.task_files import offline_tasks, stock_names

    assert (Path(offline_tasks()) / "videomme_local.yaml").is_file()
    assert {"videomme", "egoschema_subset", "longvideobench_val_v"} <= stock_names()
    quoted_keys, sign, in_template = {"mmlu_anatomy", "mmlu_stem_tasks"}, {"refcoco+"}, {"vstar_bench"}
    assert quoted_keys | sign | in_template <= stock_names()


def test_a_users_table_is_checked_without_writing_anything_beside_it(videos, tmp_path):
    (tmp_path / "clips.csv").write_text("video,question\ndata/videomme/data/v0.mp4,What happens?\n")
    before = sorted(tmp_path.rglob("*"))
    assert states(check_task("clips.csv", [], progress)) == [("task", "ok"), ("videos", "ok")]
    assert sorted(tmp_path.rglob("*")) == before
