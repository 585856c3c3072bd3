"""Silences the note that setuptools prints for every editable installation; all else stands in pyproject.toml."""

import warnings

from setuptools import setup

warnings.filterwarnings("ignore", message="Editable installation")
setup()
