"""The progress of commands that do not go through lmms-eval's command line, which hides it."""

import sys

from loguru import logger

SHOWN = ("lmms_eval.models.model_utils.progress", "lmms_eval_stgridpool.comparison.sweeping")
"""Modules that log lines of progress."""


def log_progress() -> None:
    """Print lines of progress: ours, and those that lmms-eval logs in place of a bar where standard error is a file."""
    logger.add(sys.stderr, level="INFO", filter=lambda record: record["name"] in SHOWN, format="{message}")
