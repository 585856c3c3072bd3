"""The runs of a table: commands, runs that are finished, and our numbers beside the published ones."""

import json
import re
from pathlib import Path

import pytest

from lmms_eval_stgridpool.comparison.rows import Row
from lmms_eval_stgridpool.reproduction.running import Outcome, Settings, accuracy, outcome, run_all
from lmms_eval_stgridpool.reproduction.tables import Cell

CELL = Cell(
    "lmms-lab/7B", "sttm 30 %", "videomme", "quiz", "sttm", {"retention": 0.3}, {"max_frames_num": 64, "fps": 1}, 62.3
)


FACTS = {"frames": 1, "visual_tokens": 8, "newline_tokens": 0, "full_tokens": 8}
FACTS |= {"kept_tokens": {"last_layer": 8}, "retention": {"last_layer": 1.0}}


def write_run(folder, score=62.0, metric="acc", **record):
    """Four questions about four videos, of which three are right, whatever the score says."""
    samples = [{"doc_id": n, "acc": {"score": float(n > 0)}, "token_counts": [FACTS]} for n in range(4)]
    holder = Path(folder) / "model"
    holder.mkdir(parents=True)
    (holder / "t_results.json").write_text(json.dumps({"results": {"quiz": {f"{metric},none": score}}}))
    (holder / "t_run.json").write_text(json.dumps({"compressor": "C()", "requests": 4, "seconds": {}} | record))
    (holder / "t_samples_quiz.jsonl").write_text("\n".join(map(json.dumps, samples)))


def test_a_command_names_task_checkpoint_settings_and_folder(tmp_path):
    words = Settings(tmp_path).command(CELL)
    assert words[:-1] == [
        *("eval", "quiz", "lmms-lab/7B", "max_frames_num=64", "fps=1", 'compressor_args={"retention":0.3}'),
        *("--compressor", "sttm", "--output"),
    ]
    assert Path(words[-1]).parent == tmp_path
    assert Path(words[-1]).name.startswith("sttm_30_percent-videomme-")


def test_the_users_own_settings_replace_those_of_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano").mkdir()
    settings = Settings(
        Path("out"),
        "nano",
        arguments=("max_frames_num=8", "device=cpu"),
        processes=2,
        lmms_eval="--limit 3",
    )
    words = settings.command(CELL)
    assert words[:-2] == [
        *("eval", "quiz", str(tmp_path / "nano"), "fps=1", 'compressor_args={"retention":0.3}', "max_frames_num=8"),
        *("device=cpu", "--compressor", "sttm", "--lmms-eval", "--limit 3", "--processes", "2"),
    ]
    assert Path(words[-1]).parent == tmp_path / "out"
    assert words[-1] != Settings(Path("out"), "nano").command(CELL)[-1]  # other settings, another folder


def test_runs_are_made_once_and_a_failed_one_does_not_stop_the_others(tmp_path):
    others = [Cell(**vars(CELL) | {"benchmark": name}) for name in ("mlvu", "nextqa", "vnbench")]
    cells, started, lines = [CELL, *others], [], []

    def start(words, folder):
        number = len(started)
        started.append((words, folder))
        if number in {0, 3}:
            write_run(words[-1])
        elif number == 1:
            write_run(words[-1], run_failed="the run failed: no video")
        return number in {1, 2}

    settings = Settings(tmp_path, data=tmp_path)
    first = run_all(cells, settings, start, lines.append)
    assert [(one.ours, one.problem) for one in first] == [(62.0, ""), (None, "failed"), (None, "failed"), (62.0, "")]
    assert {folder for _, folder in started} == {tmp_path}
    again = run_all(cells[:1], settings, start, lines.append)
    assert (len(started), again[0].ours) == (4, 62.0)
    assert lines[0] == "1 of 4: sttm 30 %, videomme"
    assert lines[-1] == f"1 of 1: sttm 30 %, videomme: finished before, in {first[0].folder}"


def test_a_run_without_a_score_is_not_a_failure_and_is_made_once(tmp_path):
    """EgoSchema's server has the score; the task on disk counts the answers in the file for it."""
    write_run(tmp_path / "run", score="N/A")
    assert outcome(CELL, str(tmp_path / "run")).problem == "no score"
    assert outcome(CELL, str(tmp_path / "none")).problem == ""
    lines, settings = [], Settings(tmp_path)
    write_run(settings.command(CELL)[-1], score=5031.0, metric="answers_in_submission")
    [found] = run_all([CELL], settings, lambda words, folder: pytest.fail("it was made before"), lines.append)
    assert found.problem == "no score"
    assert "finished before" in lines[0]


@pytest.mark.parametrize("score", [57.3, 0.8])
def test_the_score_that_egoschemas_server_returned_is_in_percent(tmp_path, score):
    write_run(tmp_path / "run", score=score, metric="submission")
    found = outcome(CELL, str(tmp_path / "run"))
    assert (found.ours, found.interval, found.is_finished) == (score, None, True)


def test_the_number_of_processes_changes_no_folder_and_other_data_do(tmp_path):
    folders = [
        Settings(tmp_path, processes=number, data=data).command(CELL)[-1]
        for number, data in (
            (None, None),
            (1, None),
            (8, None),
            (None, tmp_path),
            (8, tmp_path),
            (None, tmp_path / "b"),
        )
    ]
    assert folders[0] == folders[1] == folders[2]
    assert folders[3] == folders[4]
    assert len(set(folders)) == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "t_results.json").write_text("{"), "cannot be read: Expecting property name"),
        (
            lambda run: (run / "t_samples_quiz.jsonl").write_text(json.dumps({"doc_id": 0, "token_counts": []})),
            "cannot be read: none of the questions of quiz in .* was answered",
        ),
        (
            lambda run: (run / "t_samples_quiz.jsonl").write_text(
                json.dumps({"doc_id": 0, "token_counts": [FACTS], "acc": "A"})
            ),
            "cannot be read: acc of quiz is 0.8, and nobody can tell whether that is in %",
        ),
    ],
)
def test_an_error_is_named_with_its_cell_and_is_not_a_missing_score(tmp_path, damage, message):
    lines, settings = [], Settings(tmp_path)

    def start(words, folder):
        write_run(words[-1], score=0.8)
        damage(Path(words[-1]) / "model")
        return 0

    [found] = run_all([CELL], settings, start, lines.append)
    assert found.problem == "failed"
    assert re.fullmatch(f"1 of 1: sttm 30 %, videomme: the run in .* {message}.*", lines[-1])


def test_a_run_that_leaves_no_results_has_failed(tmp_path):
    [found] = run_all([CELL], Settings(tmp_path), lambda words, folder: 0, print)
    assert found.problem == "failed"


@pytest.mark.parametrize(
    ("published", "ours", "interval", "text"),
    [
        (62.3, 62.0, 1.5, "62.0 ± 1.5 / 62.3"),
        (62.3, 60.0, 1.5, "60.0 ± 1.5 / 62.3 !"),
        (62.3, 61.5, None, "61.5 / 62.3"),
        (62.3, 61.0, None, "61.0 / 62.3 !"),
        (None, 61.0, 1.5, "61.0 ± 1.5 / ?"),
        (62.3, None, None, "- / 62.3"),
    ],
)
def test_a_number_outside_of_our_interval_is_marked(published, ours, interval, text):
    cell = Cell(**vars(CELL) | {"published": published})
    assert str(Outcome(cell, "folder", ours, interval)) == text


def test_unanswered_questions_stand_beside_the_number():
    assert str(Outcome(CELL, "folder", 62.0, 1.0, unanswered=3)) == "62.0 ± 1.0 (3 unanswered) / 62.3"


def make_row(questions, score, interval, unit=100):
    return Row("run", "t", "C()", questions, 0, None, 4.0, 8.0, 0.0, 1.0, 1.0, 0.5, "acc", score, interval, {}, unit)


def test_the_accuracy_of_a_group_is_that_of_all_its_questions():
    # 100 questions at 50 and 300 at 70: 65. Their sums of questions vary by 100 * 4 and 300 * 1, so 500 of 400.
    assert accuracy([make_row(100, 50.0, 4.0), make_row(300, 70.0, 1.0)]) == (65.0, pytest.approx(1.25))
    assert accuracy([make_row(4, 0.5, 0.1, unit=1)]) == (50.0, pytest.approx(10.0))  # shares of 1
    assert accuracy([make_row(4, 0.8, 0.1)]) == (0.8, pytest.approx(0.1))  # less than 1 %
    assert accuracy([make_row(2, 0.8, None), make_row(2, 0.5, None, unit=1)]) == (pytest.approx(25.4), None)
    assert accuracy([make_row(4, 0.0, None, unit=None)]) == (0.0, None)
    assert accuracy([make_row(1, 50.0, None), make_row(1, 70.0, 1.0)]) == (60.0, None)
