"""The comparison of runs reduces samples, record and results to the numbers worked out by hand here."""

import io
import json

import pytest
from rich.console import Console

from lmms_eval_stgridpool.comparison.finished_run import find_runs, load_run
from lmms_eval_stgridpool.comparison.rows import first_metric, rows_of, score_interval, scores_by, summarise
from lmms_eval_stgridpool.comparison.table import cells, markdown, show


def read_runs(folders, **options):
    return [row for run in find_runs(folders) for row in rows_of(run, **options)]


def read_run(folder, **options):
    return rows_of(load_run(folder), **options)


def sample(doc_id, frames, visual_tokens, newline_tokens, left=1.0):
    facts = {"frames": frames, "visual_tokens": visual_tokens, "newline_tokens": newline_tokens, "failed": not frames}
    if frames:
        facts |= {"full_tokens": visual_tokens, "kept_tokens": {"last_layer": left * visual_tokens}}
        facts["retention"] = {"last_layer": left}
    return {"doc_id": doc_id, "token_counts": [facts]}


def write_run(folder, stamp="20260101_000000", score=50.0, failed=0, compressor="NSP(kernel_size=2)", **more):
    model = folder / "checkpoint"
    model.mkdir(parents=True, exist_ok=True)
    results = {"alias": "quiz", "acc_stderr,none": 0.1, "note,none": "N/A", "acc,none": score, "other,none": 1.0}
    record = {
        "compressor": compressor,
        "requests": 4,
        "failed_requests": failed,
        "seconds": {"decode": 1.0, "prefill": 5.0},
    } | more
    samples = [sample(0, 2, 8, 4), sample(1, 2, 8, 4), sample(2, 6, 24, 12, left=0.25)]
    samples += [sample(3, 0, 0, 0)] * failed
    samples = samples[3:] if more.get("run_failed") else samples
    (model / f"{stamp}_results.json").write_text(json.dumps({"results": {"quiz": results}}))
    (model / f"{stamp}_run.json").write_text(json.dumps(record))
    lines = "".join(json.dumps(line) + "\n" for line in samples)
    (model / f"{stamp}_samples_quiz.jsonl").write_text(lines)
    return folder


def shown(rows):
    console = Console(file=io.StringIO(), width=80)
    show(rows, console)
    return console.file.getvalue()


def test_a_run_is_reduced_to_a_row(tmp_path):
    (row,) = read_run(write_run(tmp_path / "first"))
    assert (row.run, row.task, row.questions, row.unanswered) == ("first", "quiz", 3, 0)
    assert row.tokens_per_frame == 4.0  # 40 tokens of 10 frames
    assert row.tokens_per_video == pytest.approx(40 / 3)
    assert row.newlines_per_video == pytest.approx(20 / 3)
    assert row.retention_mean == pytest.approx((1 + 1 + 0.25) / 3)
    assert row.retention_total == pytest.approx((8 + 8 + 6) / 40)
    assert row.seconds_per_question == 1.5  # 6 s, 4 questions
    assert (row.metric, row.score) == ("acc", 50.0)


def scored(*pairs):
    """Samples with a score each, of the video named."""
    return [{"doc_id": number, "m": {"score": score, "videoID": video}} for number, (score, video) in enumerate(pairs)]


def test_the_interval_counts_videos_not_questions():
    # Mean 0.5; the residuals of the two videos sum to 1 and -1, so the variance is 2 * 2 / 1 over 4 squared.
    clustered = scored((1.0, "a"), (1.0, "a"), (0.0, "b"), (0.0, "b"))
    assert score_interval(clustered, "m", 50.0) == pytest.approx(196 * 4**0.5 / 4)
    assert score_interval(clustered, "m", 0.5) == pytest.approx(1.96 * 4**0.5 / 4)
    # Each question a video of its own: four residuals of a half.
    alone = [{**sample, "m": {"score": sample["m"]["score"]}} for sample in clustered]
    assert score_interval(alone, "m", 50.0) == pytest.approx(196 * (4 * 0.25 * 4 / 3) ** 0.5 / 4)


def test_without_scores_there_is_no_interval():
    assert score_interval([{"doc_id": 0, "m": 1.0}], "m", 1.0) is None
    assert score_interval(scored((1.0, "a"), (0.0, "a")), "m", 0.5) is None


def test_questions_without_a_known_answer_do_not_count():
    samples = [*scored((1.0, "a"), (0.0, "b")), {"doc_id": 2, "not_scored": {"videoID": "c"}}]
    # Residuals of a half and minus a half: the variance is 2 * 0.5 / 1 over 2 squared.
    assert score_interval(samples, "m", 0.5) == pytest.approx(1.96 * 1**0.5 / 2)
    assert scores_by("videoID", samples, "m", 0.5) == {"a": 1.0, "b": 0.0}
    assert score_interval(samples[2:], "m", 0.5) is None


def test_unanswered_questions_count_no_tokens_and_stand_beside_the_accuracy(tmp_path):
    (row,) = read_run(write_run(tmp_path / "first", failed=2))
    assert row.tokens_per_video == pytest.approx(40 / 3)
    assert (row.questions, row.unanswered) == (5, 2)
    line = next(line.split() for line in shown([row]).splitlines() if line.split()[:1] == ["first"])
    assert line[-2:] == ["2", "50.00"]


def test_a_question_with_an_unanswered_choice_is_one_unanswered_question():
    facts = sample(0, 2, 8, 4)["token_counts"] + 2 * sample(0, 0, 0, 0)["token_counts"] + [None]
    record = {"compressor": "C()", "seconds": {}, "requests": 4}
    row = summarise("first", "quiz", record, [{"doc_id": 0, "token_counts": facts}], {"acc,none": 1.0})
    assert row.unanswered == 1


def test_a_failed_run_is_shown_without_its_accuracy(tmp_path):
    reason = "the run failed: 4 of 4 questions could not be answered (unreadable video: 4)"
    (row,) = read_run(write_run(tmp_path / "first", failed=4, score=18.75, run_failed=reason))
    assert row.tokens_per_video is None
    text = shown([row])
    assert "18.75" not in text
    assert f"first: {reason}." in text
    assert ["first", "-", "-", "+", "-", "-,", "-", "1.500", "4", "failed"] in [
        line.split() for line in text.splitlines()
    ]


def test_a_run_that_an_earlier_one_has_answered_takes_no_time(tmp_path):
    (row,) = read_run(write_run(tmp_path / "first", requests=0, seconds={}))
    assert row.seconds_per_question is None
    assert ["first", "4.0", "13", "+", "7", "75.0,", "55.0", "-", "0", "50.00"] in [
        line.split() for line in shown([row]).splitlines()
    ]


def test_the_newest_run_of_a_folder_counts(tmp_path):
    write_run(tmp_path, stamp="20260101_000001", score=75.0)
    write_run(tmp_path, stamp="20260101_000000", score=25.0)
    assert [row.score for row in read_run(tmp_path)] == [75.0]


def test_the_table_fits_a_terminal_and_shows_every_run(tmp_path):
    runs = {"bilinear": "Bilinear(stride=2)", "st_gridpool": "STGridPool(preset='released', strides=(2, 4, 8))"}
    rows = [row for name, text in runs.items() for row in read_run(write_run(tmp_path / name, compressor=text))]
    text = shown(rows)
    lines = [line.split() for line in text.splitlines()]
    assert ["bilinear", "4.0", "13", "+", "7", "75.0,", "55.0", "1.500", "0", "50.00"] in lines
    assert ["st_gridpool", "4.0", "13", "+", "7", "75.0,", "55.0", "1.500", "0", "50.00"] in lines
    assert "accuracy is acc" in text
    assert f"st_gridpool: {runs['st_gridpool']}" in text


def test_a_run_without_results_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \*_results.json below .*did the run fail\?"):
        read_run(tmp_path)


def test_a_run_without_samples_is_an_error(tmp_path):
    write_run(tmp_path)
    (tmp_path / "checkpoint" / "20260101_000000_samples_quiz.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="was the run started with --log_samples"):
        read_run(tmp_path)


def test_results_without_a_number_are_an_error():
    with pytest.raises(ValueError, match="the results of quiz hold no number"):
        first_metric("quiz", {"alias": "quiz", "acc,none": "N/A"})
    with pytest.raises(ValueError, match="none of the questions of quiz in first was answered"):
        summarise("first", "quiz", {}, [sample(0, 0, 0, 0)], {"acc,none": 1.0})


def test_scores_are_divided_by_what_the_metric_keeps(tmp_path):
    """Scores 1, 0 of one kind and 1 of another, in percent as the results are."""
    folder = write_run(tmp_path / "first", score=66.67)
    [path] = folder.rglob("*_samples_quiz.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line, kind, score in zip(lines, ("long", "long", "short"), (1.0, 0.0, 1.0), strict=True):
        line["acc"] = {"duration": kind, "score": score}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (row,) = read_run(folder, by="duration")
    assert row.parts == {"long": 50.0, "short": 100.0}
    assert markdown([row]).splitlines()[-1].endswith("| 50.0 | 100.0 |")
    with pytest.raises(ValueError, match="acc keeps no length of a question, but duration, score: pass one of these"):
        read_run(folder, by="length")


def test_any_definition_of_retention_can_be_shown(tmp_path):
    folder = write_run(tmp_path / "first")
    [path] = folder.rglob("*_samples_quiz.jsonl")
    path.write_text(path.read_text().replace("last_layer", "kv_read"))
    (row,) = read_run(folder, of="kv_read")
    assert row.retention_total == pytest.approx((8 + 8 + 6) / 40)


def test_every_run_that_was_given_is_shown_under_a_name_of_its_own(tmp_path):
    """Two output folders called alike, and a sweep of two methods."""
    for number, name in enumerate(("a/bilinear", "b/bilinear", "sweep/nsp", "sweep/random")):
        write_run(tmp_path / name, score=float(number), compressor=f"C{number}()")
    rows = read_runs([tmp_path / "a/bilinear", tmp_path / "b/bilinear", tmp_path / "sweep"])
    assert [row.run for row in rows] == ["a/bilinear", "b/bilinear", "nsp", "random"]
    assert [row.score for row in rows] == [0.0, 1.0, 2.0, 3.0]
    text = shown(rows)
    assert all(f"{row.run}: C{number}()" in text for number, row in enumerate(rows))


def test_two_checkpoints_in_one_output_folder_are_two_runs(tmp_path):
    write_run(tmp_path / "out", score=1.0)
    (tmp_path / "out" / "checkpoint").rename(tmp_path / "out" / "other")
    write_run(tmp_path / "out", score=2.0)
    rows = read_runs([tmp_path / "out"])
    assert [(row.run, row.score) for row in rows] == [("checkpoint", 2.0), ("other", 1.0)]


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \*_results.json below .*did the run fail\?"):
        read_runs([tmp_path])


def test_runs_of_a_sweep_are_not_charged_for_reading_and_encoding(tmp_path):
    """Of 6 s, the video's decoding takes 1 s; there are 4 questions."""
    (row,) = read_run(write_run(tmp_path / "first", sweep=["A()", "B()"]))
    assert row.seconds_per_question == 1.25


@pytest.mark.parametrize(("score", "expected"), [(50.0, "50.00 ± 98.00"), (0.5, "0.5000 ± 0.9800")])
def test_accuracy_and_its_error_have_one_unit(score, expected):
    """Two videos, residuals of a half: 1.96 * sqrt(2 * 0.25 * 2 / 1) / 2 = 0.98."""
    samples = [{**sample(number, 2, 8, 4), "m": {"score": float(number)}} for number in range(2)]
    record = {"compressor": "C()", "seconds": {}, "requests": 2}
    row = summarise("first", "quiz", record, samples, {"m": score})
    assert cells(row)[-1] == expected


@pytest.mark.parametrize(("score", "expected"), [(0.616, "0.6160"), (61.6, "61.60"), (-0.5, "-0.5000")])
def test_a_score_of_unknown_unit_has_four_digits_if_it_may_be_a_share(score, expected):
    record = {"compressor": "C()", "seconds": {}, "requests": 1}
    row = summarise("first", "quiz", record, [sample(0, 2, 8, 4)], {"m": score})
    assert row.unit is None
    assert cells(row)[-1] == expected
