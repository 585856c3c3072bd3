import json

import pytest
from loguru import logger

from lmms_eval_stgridpool.kept import output
from lmms_eval_stgridpool.kept.output import RunFiles, conclude, end_run
from lmms_eval_stgridpool.kept.record import RankSums, run_record
from lmms_eval_stgridpool.run.unanswered import Verdict

HALF = Verdict(4, {"unreadable video": 2}, 0.5)
MOST = Verdict(4, {"unreadable video": 3}, 0.5)


TIME = "20260101_000000"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "model"


@pytest.fixture
def at_exit(monkeypatch):
    registered = []
    monkeypatch.setattr("atexit.register", lambda function, *call: registered.append(lambda: function(*call)))
    return registered


@pytest.fixture
def endings(monkeypatch):
    """One entry for each time that the process was told to end with a failure."""
    noted = []
    monkeypatch.setattr(output, "end_with_failure", lambda: noted.append(1))
    return noted


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "20260101_000000_results.json"
    path.write_text(json.dumps({"results": {"quiz": {"acc": 0.25}}, "ünïcode": 1}))
    return path


def test_the_record_stands_beside_the_results(folder, tmp_path, at_exit):
    files = RunFiles.claim(folder, TIME)
    assert files.results == tmp_path / "model" / "20260101_000000_results.json"
    files.write({"frames": 8})
    at_exit[0]()
    assert json.loads((tmp_path / "model" / "20260101_000000_run.json").read_text()) == {"frames": 8}
    assert list(files.record.parent.iterdir()) == [files.record]


@pytest.mark.usefixtures("at_exit")
def test_a_second_run_of_the_same_second_is_refused(folder):
    RunFiles.claim(folder, TIME)
    with pytest.raises(FileExistsError, match=r"started in the same second.*this one again, or give it a different"):
        RunFiles.claim(folder, TIME)


@pytest.mark.usefixtures("at_exit")
def test_results_of_another_model_of_the_same_second_are_not_overwritten(folder):
    folder.mkdir()
    (folder / "20260101_000000_results.json").touch()
    with pytest.raises(FileExistsError, match="started in the same second"):
        RunFiles.claim(folder, TIME)


def test_a_run_that_ends_early_leaves_no_record(folder, at_exit):
    files = RunFiles.claim(folder, TIME)
    at_exit[0]()
    assert not list(files.record.parent.iterdir())
    RunFiles.claim(folder, TIME)


def test_without_the_command_line_nothing_is_done_at_the_end_of_the_process(folder, at_exit, logged):
    files = RunFiles.claim(folder, TIME)
    record = json.loads(json.dumps(run_record({"compressor": "C()"}, [RankSums(0)], 1.0)))
    end_run(record, MOST, files)
    assert len(at_exit) == 1  # the removal of an empty record
    assert json.loads(files.record.read_text()) == record
    assert "the run failed: 3 of 4 questions could not be answered" in logged[-1]


def test_few_unanswered_questions_are_marked_in_the_results(results, endings):
    conclude(HALF, results)
    written = json.loads(results.read_text())
    assert written["unanswered"] == {"questions": 2, "of": 4, "reasons": {"unreadable video": 2}}
    assert "run_failed" not in written
    assert (written["results"], written["ünïcode"]) == ({"quiz": {"acc": 0.25}}, 1)
    assert not endings


def test_results_of_a_failed_run_say_so_before_anything_else(results, endings, logged):
    conclude(MOST, results)
    written = json.loads(results.read_text())
    assert next(iter(written)) == "run_failed"
    assert written["run_failed"] == str(MOST)
    assert written["results"] == {"quiz": {"acc": 0.25}}
    assert endings == [1]
    assert "the run failed: 3 of 4 questions could not be answered" in logged[-1]
    assert [path.name for path in results.parent.iterdir()] == [results.name]


def test_results_of_a_whole_run_stay_as_they_are(results, endings, logged):
    before = results.read_bytes()
    conclude(Verdict(4, {}, 0.5), results)
    assert results.read_bytes() == before
    assert not endings
    assert f"results: {results}" in logged[-1]


def test_a_run_without_results_fails(tmp_path, endings, logged):
    conclude(Verdict(4, {}, 0.5), tmp_path / "none_results.json")
    assert endings == [1]
    assert "lmms-eval has not written" in logged[-1]


def test_a_failed_run_without_an_output_folder_fails_as_well(endings):
    conclude(MOST, None)
    assert endings == [1]
    conclude(HALF, None)
    assert endings == [1]


def test_damaged_videos_are_named_in_the_results_and_below_the_table(results, endings):
    logged = []
    handler = logger.add(logged.append, level="WARNING", format="{message}")
    conclude(Verdict(4, {}, 0.5, {"b.mp4": 2, "a.mp4": 1}), results)
    logger.remove(handler)
    assert json.loads(results.read_text())["damaged_videos"] == {"b.mp4": 2, "a.mp4": 1}
    assert "unanswered" not in json.loads(results.read_text())
    assert "2 videos are damaged" in logged[0]
    assert "a.mp4, b.mp4" in logged[0]
    assert not endings


def test_a_run_without_results_leaves_no_folder(tmp_path):
    other = tmp_path / "nsp" / "checkpoint" / "other.json"
    (tmp_path / "empty").mkdir()
    for name in ("average", "nsp", "empty"):
        files = RunFiles.claim(tmp_path / name / "checkpoint", "20260101_000000")
        if name == "nsp":
            other.write_text("{}")
        files.give_up()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [other]
    assert not (tmp_path / "average").exists()
    assert list((tmp_path / "empty").iterdir()) == []  # was there before
