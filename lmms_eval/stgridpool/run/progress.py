"""The progress of commands that do not go through lmms-eval's command line, which hides it."""

import sys

from loguru import logger


def log_progress() -> None:
    """Print lmms-eval's lines of progress, which it logs in place of a bar where standard error is a file."""
    logger.add(sys.stderr, level="INFO", filter="lmms_eval.models.model_utils.progress", format="{message}")
