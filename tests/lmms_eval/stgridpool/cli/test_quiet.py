"""What a command changes in its own process."""

import subprocess
import sys

CODE = """
from lmms_eval_stgridpool.cli.quiet import offline, quiet
offline()
quiet()
from huggingface_hub import constants
from loguru import logger
from transformers.utils import logging
logger.info("not shown")
logger.warning("shown")
print(constants.HF_HUB_OFFLINE, logging.get_verbosity() == logging.ERROR, logging.is_progress_bar_enabled())
"""


def test_only_warnings_are_shown_and_nothing_is_downloaded(environment):
    plain = {name: value for name, value in environment.items() if not name.endswith("_OFFLINE")}
    # A process of its own: those of `run_python` have loaded these libraries beforehand.
    run = subprocess.run([sys.executable, "-c", CODE], env=plain, capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["True", "True", "False"], run.stderr
    assert run.stderr.splitlines()[-1] == "WARNING: shown"
    assert "not shown" not in run.stderr
