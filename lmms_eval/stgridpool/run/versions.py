"""Which versions of the libraries a run uses, and whether the tests have seen them.

The libraries rename what the plug-in builds on from one minor release to the next. A run with a version that was never
tested still starts, but says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from loguru import logger
from packaging.specifiers import SpecifierSet
from packaging.version import Version

TESTED: Mapping[str, SpecifierSet] = {
    "torch": SpecifierSet("==2.14.1"),
    "torchvision": SpecifierSet("==0.29.1"),
    "transformers": SpecifierSet(">=5.17.0,<=5.24.0"),
    "huggingface_hub": SpecifierSet(">=1.33.0,<=2.4.0"),
    "lmms_eval": SpecifierSet("==0.7.3"),
    "datasets": SpecifierSet("==5.2.0"),
    "accelerate": SpecifierSet("==1.15.0"),
    "filelock": SpecifierSet("==3.32.7"),
    "av": SpecifierSet("==15.1.0"),
    "decord": SpecifierSet("==0.6.0"),
}
"""Tested versions by package: the pins of constraints.txt, and for transformers every release from the oldest that
scripts/try_versions.py runs."""


def package_version(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def untested_versions(tested: Mapping[str, SpecifierSet] = TESTED) -> dict[str, str]:
    """Installed packages of another version than the tested ones, with that version; local parts (`+cpu`) do not count.

    Args:
        tested: Tested versions by package.
    """
    installed = {name: package_version(name) for name in tested}
    return {
        name: text
        for name, text in installed.items()
        if text is not None and not tested[name].contains(Version(text).public, prereleases=True)
    }


def warn_of_untested_versions() -> None:
    """Say in one line which versions were not tested, if there are any."""
    untested = untested_versions()
    if untested:
        logger.warning(untested_line(untested))


def untested_line(untested: Mapping[str, str], tested: Mapping[str, SpecifierSet] = TESTED) -> str:
    """What a run with untested versions says about them, in one line."""
    versions = ", ".join(f"{name} {text} (tested: {tested[name]})" for name, text in sorted(untested.items()))
    return f"this run uses versions that were not tested: {versions}; constraints.txt has those that were"
