"""What other libraries print and load while a command runs."""

import os
import sys

from loguru import logger


def quiet() -> None:
    """Show warnings of lmms-eval's logger only, and of transformers errors only and no progress."""
    from transformers.utils import logging  # noqa: PLC0415

    logger.remove()
    logger.add(sys.stderr, level="WARNING", format="{level}: {message}")
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def offline() -> None:
    """Let the libraries of Hugging Face use what is on this disk; must come before they are imported."""
    os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
