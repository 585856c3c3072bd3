"""Tested versions agree with the pins, and a run outside of them is told."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from lmms_eval_stgridpool.kept import record
from lmms_eval_stgridpool.run import versions

REPOSITORY = Path(__file__).resolve().parents[4]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_what_cannot_be_installed_or_imported_is_bounded():
    """filelock 4 lacks what lmms-eval imports; decord has wheels for Linux and Windows on x86-64 alone."""
    found = {one.name: one for one in map(Requirement, PROJECT["dependencies"])}
    assert "3.29" in found["filelock"].specifier
    assert "4.0" not in found["filelock"].specifier
    for system, machine, has_wheel in (
        ("linux", "x86_64", True),
        ("linux", "aarch64", False),
        ("darwin", "arm64", False),
        ("win32", "AMD64", True),
    ):
        assert found["decord"].marker.evaluate({"sys_platform": system, "platform_machine": machine}) is has_wheel


def test_the_readme_installs_the_pinned_versions():
    commands = [line for line in (REPOSITORY / "README.md").read_text().splitlines() if line.startswith("pip install")]
    assert any(line.split("#")[0].strip() == "pip install -c constraints.txt ." for line in commands)


@pytest.fixture
def install(monkeypatch):
    """Function that makes packages look installed in these versions."""

    def install(**installed):
        monkeypatch.setattr(versions, "package_version", installed.get)

    return install


def pins():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_every_pin_is_a_plain_version():
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    assert len({requirement.name for requirement in requirements}) == len(lines) > 100
    for requirement in requirements:
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        assert Version(specifier.version).local is None
        assert requirement.url is None


def test_pins_are_tested_and_everything_that_we_ask_for_is_pinned_within_its_bounds():
    pinned = pins()
    for name, tested in versions.TESTED.items():
        pin = pinned[canonicalize_name(name)]
        assert pin in tested, f"constraints.txt has {name} {pin}: let versions.TESTED end there"
        assert max(tested, key=lambda one: Version(one.version)).version == pin
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]:
        requirement = Requirement(text)
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_oldest_transformers_is_the_one_that_the_project_asks_for():
    (asked,) = (Requirement(text) for text in PROJECT["dependencies"] if text.startswith("transformers"))
    assert "5.17.0" in asked.specifier
    assert "5.16.9" not in asked.specifier
    assert "5.17.0" in versions.TESTED["transformers"]


@pytest.mark.parametrize("version", ["5.17.0", "5.20.3", "5.24.0", "5.24.0+cpu"])
def test_tested_versions_are_not_named(install, version):
    install(transformers=version)
    assert versions.untested_versions({"transformers": SpecifierSet(">=5.17.0,<=5.24.0")}) == {}


@pytest.mark.parametrize("version", ["5.16.2", "5.24.1", "5.25.0.dev0", "5.100", "6.0"])
def test_others_are(install, version):
    install(transformers=version)
    tested = {"transformers": SpecifierSet(">=5.17.0,<=5.24.0"), "decord": SpecifierSet("==0.6.0")}
    assert versions.untested_versions(tested) == {"transformers": version}  # decord is missing: none to name


def test_the_line():
    tested = {"transformers": SpecifierSet("==5.24.0"), "av": SpecifierSet("==15.1.0")}
    assert versions.untested_line({"transformers": "5.25", "av": "16"}, tested) == (
        "this run uses versions that were not tested: av 16 (tested: ==15.1.0), transformers 5.25 (tested: ==5.24.0); "
        "constraints.txt lists tested versions"
    )


def test_a_run_says_so_once_and_records_it(monkeypatch, make_model):
    messages = []
    sink = versions.logger.add(messages.append, format="{message}")
    monkeypatch.setattr(versions, "untested_versions", lambda: {"transformers": "9.9"})
    monkeypatch.setattr(record, "untested_versions", versions.untested_versions)
    model = make_model()
    versions.logger.remove(sink)
    assert [text for text in messages if "transformers 9.9 (tested: " in text and text.count("\n") == 1]
    assert len([text for text in messages if "not tested" in text]) == 1
    assert record.run_record({}, [record.RankSums(0)], 1.0)["untested_versions"] == {"transformers": "9.9"}
    assert model.rank == 0


def test_a_run_with_tested_versions_says_nothing(monkeypatch):
    monkeypatch.setattr(versions, "untested_versions", dict)
    monkeypatch.setattr(versions.logger, "warning", None)
    versions.warn_of_untested_versions()
