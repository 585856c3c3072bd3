"""Reports, from runs whose numbers were counted by hand."""

import math
import re
from dataclasses import replace

import pytest

from lmms_eval_stgridpool.report.content import make_report
from lmms_eval_stgridpool.report.differences import compare
from lmms_eval_stgridpool.report.markdown import to_latex, to_markdown
from lmms_eval_stgridpool.report.page import to_html
from lmms_eval_stgridpool.report.plots import groups_of_equal_tokens, pareto
from lmms_eval_stgridpool.report.runs import read_task_runs
from lmms_eval_stgridpool.report.writing import write_report


def rows_of(report, title):
    (table,) = (table for table in report.tables if table.title == title)
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


@pytest.fixture
def runs(write_run):
    return read_task_runs([write_run("whole", "AAAAAB", 200), write_run("half", "AABBAC", 100)])


def test_a_difference_is_paired_and_clustered_by_video(runs):
    whole, half = runs
    found = compare(half, whole)
    # Gains 0 0 | -1 -1 | 0 0: mean -1/3; residuals of the videos 2/3, -4/3, 2/3.
    variance = (4 + 16 + 4) / 9 * 3 / 2
    assert found.score == pytest.approx(-1 / 3)
    assert found.interval == pytest.approx(1.96 * math.sqrt(variance) / 6)
    assert found.p_value == pytest.approx(math.erfc(1 / 3 / (math.sqrt(variance) / 6) / math.sqrt(2)))
    assert (found.better, found.worse, found.questions) == (0, 2, 6)
    assert found.changed == pytest.approx(3 / 6)  # B and C are both wrong, but not the same answer


def test_a_run_is_no_different_from_itself(runs):
    found = compare(runs[0], runs[0])
    assert (found.score, found.interval, found.p_value, found.changed) == (0, 0, 1, 0)


def test_rows(runs):
    rows = rows_of(make_report(runs), "task: runs")
    assert list(rows) == ["whole", "half"]
    assert rows["half"]["tokens/video"] == "100"
    assert rows["half"]["kept"] == "50.0 %"
    assert rows["half"]["s/question"] == "0.600"
    assert rows["whole"]["accuracy"].startswith("83.3 ± ")
    assert rows["half"]["difference"].startswith("-33.3 ± ")
    assert rows["half"]["better/worse"] == "0/2"
    assert rows["half"]["answers that differ"] == "50.0 %"
    assert rows["whole"]["difference"] == "-"


def test_equal_runs_differ_by_nothing(write_run):
    runs = read_task_runs([write_run(name, "AAAAAA") for name in "ab"])
    row = rows_of(make_report(runs), "task: runs")["b"]
    assert (row["accuracy"], row["difference"], row["p"]) == ("100.0 ± 0.0", "+0.0 ± 0.0", "1.000")


def test_another_baseline_and_an_unknown_one(runs):
    rows = rows_of(make_report(runs, "half"), "task: runs")
    assert rows["whole"]["difference"].startswith("+33.3")
    with pytest.raises(ValueError, match=r"--baseline third: there is no such run, but whole, half"):
        make_report(runs, "third")


def test_kinds_of_questions(runs):
    rows = rows_of(make_report(runs, by=["kind"]), "task: by kind")
    assert rows["whole"] == {"run": "whole", "x (3)": "100.0", "y (3)": "66.7"}
    with pytest.raises(ValueError, match=r"keeps no colour of a question, but score, videoID, kind, answer"):
        make_report(runs, by=["colour"])


def test_many_changed_answers_look_like_another_checkpoint(runs):
    (warning,) = (one for one in make_report(runs).warnings if "differ from those" in one)
    assert warning.startswith("half, task: 50 % of the answers differ from those of whole")


def test_runs_that_are_not_comparable(write_run):
    versions = [{"versions": {"torch": number}} for number in ("2.14", "2.15")]
    folders = [write_run(name, "AAAAAB", record=one) for name, one in zip("ab", versions, strict=True)]
    warnings = make_report(read_task_runs(folders)).warnings
    assert "runs used different versions of torch: 2.14, 2.15" in warnings
    assert any("no fingerprints" in warning for warning in warnings)


def test_a_failed_run_shows_no_score(write_run):
    runs = read_task_runs([write_run("bad", "AAAAAA", record={"run_failed": "no videos"})])
    report = make_report(runs)
    assert rows_of(report, "task: runs")["bad"]["accuracy"] == "failed"
    assert "bad, task: the run failed: no videos" in report.warnings


def test_a_run_of_lmms_evals_own_model(write_run):
    runs = read_task_runs([write_run("ours", "AAAAAB"), write_run("stock", "AAAAAA", is_ours=False)])
    row = rows_of(make_report(runs), "task: runs")["stock"]
    assert row["tokens/video"] == row["kept"] == row["s/question"] == "-"
    assert row["difference"].startswith("+16.7")


def test_published_numbers_are_labelled(runs):
    runs = [replace(run, task="videomme") for run in runs]
    report = make_report(runs, sources=["st-gridpool"])
    (table,) = (table for table in report.tables if table.title == "videomme: runs")
    published = [table.rows[row] for row in sorted(table.published)]
    assert len(published) == 8  # two checkpoints, and six methods on NVILA
    assert published[1][0].startswith("published: st_gridpool, LLaVA-Video-7B-Qwen2 (ST-GridPool")
    assert published[1][6] == "64.2 (63.3 whole)"
    with pytest.raises(ValueError, match="--published nobody: no such source, but ST-GridPool"):
        make_report(runs, sources=["nobody"])


def test_the_front_holds_what_nothing_dominates():
    assert pareto([(1, 50), (2, 40), (2, 60), (3, 60), (4, 61)]) == [(1, 50), (2, 60), (4, 61)]


def test_lines_of_more_frames_at_equal_tokens(write_run):
    sizes = {"a": (100, 8), "b": (104, 16), "c": (200, 8), "d": (400, 8), "e": (401, 8)}
    runs = read_task_runs([write_run(name, "AAAAAB", *size) for name, size in sizes.items()])
    assert [[run.run for run in group] for group in groups_of_equal_tokens(runs)] == [["a", "b"]]


def test_formats(runs, tmp_path):
    report = make_report(runs)
    assert [plot.name for plot in report.plots] == ["task_tokens", "task_seconds", "task_stages"]
    assert "| half | 8.0 | 100 | 50.0 % |" in to_markdown(report)
    latex = to_latex(report)
    assert r"half & 8.0 & 100 & 50.0 \% & 0.600" in latex
    assert latex.count(r"\begin{tabular}") == len(report.tables)
    page = to_html(report)
    assert page.count("<svg") == 3
    assert not re.search(r"(src|href)=\"https?:", page)
    written = [path for name in ("r.html", "r.md", "r.tex", "p.png") for path in write_report(report, tmp_path / name)]
    assert [path.name for path in written if path.suffix == ".png"] == [
        f"{stem}_task_{plot}.png" for stem in "rp" for plot in ("tokens", "seconds", "stages")
    ]
    assert all(path.stat().st_size > 500 for path in written)


def test_text_of_users_is_escaped(write_run):
    runs = read_task_runs([write_run("a_&_b", "AAAAAB"), write_run("<b>", "AAAAAA")])
    report = make_report(runs)
    assert r"a\_\&\_b & 8.0" in to_latex(report)
    assert "<td>&lt;b&gt;</td>" in to_html(report)
