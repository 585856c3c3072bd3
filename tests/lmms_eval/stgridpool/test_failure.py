import subprocess
import sys
import time

import pytest
from loguru import logger

from lmms_eval_stgridpool.failure import exit_when_lmms_eval_gives_up, fatal


@pytest.fixture
def listening():
    handler = exit_when_lmms_eval_gives_up()
    yield
    logger.remove(handler)


@pytest.fixture
def logged():
    messages = []
    handler = logger.add(messages.append, level="DEBUG")
    yield messages
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


def test_a_fatal_error_is_logged_with_its_place_and_ends_the_process(logged):
    with pytest.raises(SystemExit) as ended, fatal("rank 3, task videomme, document 17"):
        raise KeyError("no such column")
    assert ended.value.code == 1
    assert "rank 3, task videomme, document 17: KeyError: 'no such column'" in logged[0]
    with pytest.raises(KeyboardInterrupt), fatal("here"):
        raise KeyboardInterrupt


STUCK = """
import sys, threading
from torch import distributed
from lmms_eval_stgridpool import failure
failure.GRACE_SECONDS = 2
distributed.init_process_group("gloo")
if distributed.get_rank() == 0:
    threading.Event().wait(300)  # for the other process, as in a collective operation without a timeout
threading.Thread(target=threading.Event().wait).start()  # would keep the process for ever
with failure.fatal("rank 1, video v.mp4"):
    raise ValueError("no such thing")
"""


@pytest.mark.slow
def test_a_failed_process_ends_and_the_others_with_it_whatever_they_wait_for(tmp_path):
    (tmp_path / "stuck.py").write_text(STUCK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    began = time.monotonic()
    done = subprocess.run(
        [*command, str(tmp_path / "stuck.py")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert "rank 1, video v.mp4: ValueError: no such thing" in done.stderr
    assert time.monotonic() - began < 60
