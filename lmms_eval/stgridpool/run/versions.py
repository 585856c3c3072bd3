"""Versions of the libraries that a run uses, and whether they were tested.

The libraries rename parts that the plug-in needs from one minor release to the next. A run with an untested version
still starts, but warns about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
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
"""Tested versions by package: those in constraints.txt, and for transformers also every older release that
scripts/try_versions.py tests."""


@cache
def package_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def untested_versions(tested: Mapping[str, SpecifierSet] = TESTED) -> dict[str, str]:
    """Find installed packages whose version was not tested; local parts of a version (`+cpu`) do not count.

    Args:
        tested: Tested versions by package.

    Returns:
        The installed version of each of them.
    """
    installed = {name: package_version(name) for name in tested}
    return {
        name: text
        for name, text in installed.items()
        if text is not None and not tested[name].contains(Version(text).public, prereleases=True)
    }


def warn_of_untested_versions() -> None:
    """Warn in one line about versions that were not tested, if there are any."""
    untested = untested_versions()
    if untested:
        logger.warning(untested_line(untested))


def untested_line(untested: Mapping[str, str], tested: Mapping[str, SpecifierSet] = TESTED) -> str:
    """Return the warning about untested versions, in one line."""
    versions = ", ".join(f"{name} {text} (tested: {tested[name]})" for name, text in sorted(untested.items()))
    return f"this run uses versions that were not tested: {versions}; constraints.txt lists tested versions"
