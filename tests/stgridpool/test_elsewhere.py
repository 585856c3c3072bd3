"""Methods of other packages: found by place or entry point, checked, and part of what answers depend on."""

import sys
from importlib.metadata import EntryPoint

import pytest
import torch

from stgridpool import build_compressor, elsewhere

FIRST_TOKENS = '''
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stgridpool import Evidence, Scorer, VideoTokens


@dataclass(frozen=True)
class FirstTokens(Scorer):
    """Keep the first tokens."""

    def score(self, tokens: VideoTokens, evidence: Evidence) -> Tensor:
        return -torch.arange(len(tokens))


class Undecorated(FirstTokens):
    """Derived from a dataclass, and none itself."""


class NotAMethod:
    pass


@dataclass(frozen=True)
class OnlyADataclass:
    tokens: int = 1
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder with a module `first_tokens`, on the path while a test runs."""
    (tmp_path / "first_tokens.py").write_text(FIRST_TOKENS)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("first_tokens", None)


def test_a_method_is_found_where_its_name_says(package):
    method = build_compressor("first_tokens:FirstTokens", tokens=3, scope="video")
    assert method(torch.randn(2, 2, 2, 4)).plan.kept().tolist() == [0, 1, 2]
    chain = build_compressor("average+first_tokens:FirstTokens", **{"first_tokens:FirstTokens": {"tokens": 1}})
    assert len(chain(torch.randn(2, 4, 4, 3)).tokens) == 1


def test_an_installed_package_may_give_its_method_a_name(package, monkeypatch):
    points = [EntryPoint("first", "first_tokens:FirstTokens", elsewhere.GROUP)]
    monkeypatch.setattr(elsewhere, "entry_points", lambda group: points if group == elsewhere.GROUP else [])
    assert repr(build_compressor("first", tokens=3)).startswith("FirstTokens(")
    with pytest.raises(ValueError, match="'frist', did you mean 'first'"):
        build_compressor("frist")


def test_a_name_that_packages_give_to_different_methods_is_refused(package, monkeypatch):
    values = ("first_tokens:FirstTokens", "last_tokens:LastTokens", "first_tokens:FirstTokens")
    points = [EntryPoint("first", value, elsewhere.GROUP) for value in values]
    monkeypatch.setattr(elsewhere, "entry_points", lambda group: points)
    with pytest.raises(ValueError, match=r"'first' to .* use first_tokens:FirstTokens or last_tokens:LastTokens$"):
        build_compressor("first")
    assert elsewhere.installed_names() == ["first"]
    monkeypatch.setattr(elsewhere, "entry_points", lambda group: points[::2])  # one package, found twice
    assert repr(build_compressor("first", tokens=3)).startswith("FirstTokens(")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Method", "no_such_module:Method cannot be imported: No module named 'no_such_module'"),
        ("first_tokens:Missing", "cannot be imported: module 'first_tokens' has no attribute 'Missing'"),
        (":Method", ":Method cannot be imported"),
        ("first_tokens:", "cannot be imported"),
        ("first_tokens:NotAMethod", "must be a dataclass derived from"),
        ("first_tokens:OnlyADataclass", "must be a dataclass derived from"),
        ("first_tokens:Undecorated", r"be decorated itself with @dataclass\(frozen=True\)"),
        ("first_tokens:FIRST", "has no attribute 'FIRST'"),
    ],
)
def test_other_names_are_answered(package, name, message):
    with pytest.raises(ValueError, match=message):
        build_compressor(name)


def test_an_option_that_the_method_does_not_have_is_named(package):
    with pytest.raises(ValueError, match="first_tokens:FirstTokens has no option 'token', did you mean 'tokens'"):
        build_compressor("first_tokens:FirstTokens", token=3)


def test_the_code_of_a_method_is_known(package):
    assert elsewhere.foreign_code(build_compressor("average+random")) == []
    method = build_compressor("average+first_tokens:FirstTokens")
    assert elsewhere.foreign_code(method) == [package / "first_tokens.py"]


def test_the_code_of_a_method_that_another_one_calls_is_known(package):
    code, name = [package / "first_tokens.py"], "first_tokens:FirstTokens"
    assert elsewhere.foreign_code(build_compressor(f"earlytom_frames+{name}")) == code
    assert elsewhere.foreign_code(build_compressor("per_segment", method=name)) == code
    chain = build_compressor("earlytom_frames+recycle", recycle={"method": "recycle", "options": {"method": name}})
    assert elsewhere.foreign_code(chain) == code
