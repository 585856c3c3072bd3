import pytest
from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
from loguru import logger

from lmms_eval_stgridpool.run import failure
from lmms_eval_stgridpool.run.cause import CAUSE
from lmms_eval_stgridpool.run.failure import exit_when_lmms_eval_gives_up, fatal, missing_reports


@pytest.fixture
def listening():
    handler = exit_when_lmms_eval_gives_up()
    yield
    logger.remove(handler)


def cli_evaluate(message):
    logger.error(message)


def save_results_aggregated(message):
    logger.warning(message)


def another_function(message):
    logger.error(message)


@pytest.mark.usefixtures("listening")
def test_the_process_ends_where_lmms_eval_would_go_on():
    with pytest.raises(SystemExit) as ended:
        cli_evaluate("Error during evaluation: x. Please set `--verbosity=DEBUG` to get more information.")
    assert ended.value.code == 1
    with pytest.raises(SystemExit):
        save_results_aggregated("Could not save results aggregated")


@pytest.mark.usefixtures("listening")
def test_other_messages_end_nothing():
    another_function("Error during evaluation: x")
    cli_evaluate("something else")


@pytest.fixture
def tracker(tmp_path):
    """lmms-eval's own writer of results, with a file where its folder should be."""
    (tmp_path / "model").touch()
    tracker = EvaluationTracker(output_path=str(tmp_path))
    tracker.general_config_tracker.log_experiment_args("llava_video", "pretrained=model", "", "", False)
    return tracker


@pytest.mark.usefixtures("listening")
def test_results_that_lmms_eval_itself_cannot_write_end_the_process(tracker):
    with pytest.raises(SystemExit) as ended:
        tracker.save_results_aggregated(results={}, samples={}, datetime_str="20260101_000000")
    assert ended.value.code == 1
    with pytest.raises(SystemExit):
        tracker.save_results_samples(task_name="quiz", samples=[])


def test_the_installed_lmms_eval_reports_failures_in_the_words_that_are_listened_to():
    assert missing_reports() == []


def test_other_words_other_functions_and_other_modules_are_noticed(monkeypatch):
    reports = {
        ("lmms_eval.__main__", "cli_evaluate"): "It did not work",
        ("lmms_eval.__main__", "evaluate_by_another_name"): "Error during evaluation",
        ("lmms_eval.another_module", "save_results_samples"): "Could not save sample results",
        ("lmms_eval.loggers.evaluation_tracker", "save_results_samples"): "Could not save sample results",
    }
    monkeypatch.setattr(failure, "REPORTS", reports)
    assert missing_reports() == [f"{module}.{name}" for module, name in list(reports)[:3]]


ORDERLY = """
import atexit
from lmms_eval_stgridpool.run.failure import end_with_failure
atexit.register(print, "written last")
atexit.register(end_with_failure)
"""


def test_a_process_that_ends_in_order_ends_with_a_failure_where_that_is_asked_for(run_python):
    done = run_python("-c", ORDERLY)
    assert done.returncode == 1
    assert done.stdout == "written last\n"


def test_a_fatal_error_is_logged_with_its_place_and_ends_the_process(logged):
    with pytest.raises(SystemExit) as ended, fatal("rank 3, task videomme, document 17"):
        raise KeyError("no such column")
    assert ended.value.code == 1
    assert "rank 3, task videomme, document 17: KeyError: 'no such column'" in logged[0]
    with pytest.raises(KeyboardInterrupt), fatal("here"):
        raise KeyboardInterrupt


def test_the_causes_of_a_failure_are_noted(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["lmms_eval", "--output_path", str(tmp_path), "--log_samples"])
    (tmp_path / CAUSE).touch()
    with pytest.raises(SystemExit), fatal("rank 1"):
        raise ValueError("two\nlines")
    assert (tmp_path / CAUSE).read_text() == "rank 1: ValueError: two lines\n"


@pytest.mark.usefixtures("listening")
def test_the_cause_that_lmms_eval_reports_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["lmms_eval", "--output_path", str(tmp_path)])
    (tmp_path / CAUSE).touch()
    with pytest.raises(SystemExit, match="1"):
        cli_evaluate("Error during evaluation: no disk. Please set `--verbosity=DEBUG` to get more information.")
    assert (tmp_path / CAUSE).read_text() == "Error during evaluation: no disk\n"


STUCK = """
import sys, threading
from torch import distributed
from lmms_eval_stgridpool.run import failure
failure.GRACE_SECONDS = 2
distributed.init_process_group("gloo")
if distributed.get_rank() == 0:
    threading.Event().wait()  # for the other process, as in a collective operation without a timeout
threading.Thread(target=threading.Event().wait).start()  # would keep the process for ever
with failure.fatal("rank 1, video v.mp4"):
    raise ValueError("no such thing")
"""


@pytest.mark.slow
def test_a_failed_process_ends_and_the_others_with_it_whatever_they_wait_for(start_programs, environments_of_ranks):
    started = start_programs(["-c", STUCK], ["-c", STUCK], environments=environments_of_ranks(2))
    assert 0 not in started.wait().statuses
    messages = "".join(path.read_text() for path in started.logs[1])
    assert "rank 1, video v.mp4: ValueError: no such thing" in messages
