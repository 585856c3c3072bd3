"""What other libraries print and load while a command runs."""

import logging
import os
import sys

from loguru import logger


def quiet() -> None:
    """Show warnings of lmms-eval's logger only, and errors only of transformers."""
    logger.remove()
    logger.add(sys.stderr, level="WARNING", format="{level}: {message}")
    logging.getLogger("transformers").setLevel(logging.ERROR)


def offline() -> None:
    """Let the libraries of Hugging Face use what is on this disk; must come before they are imported."""
    os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
