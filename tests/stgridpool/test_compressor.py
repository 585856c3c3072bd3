"""What every method here must do besides the contract, which `stgridpool.contract` tests; and how one is built."""

import ast
import math
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from inspect import signature
from pathlib import Path

import pytest
import torch

from documents import TEXT
from stgridpool import (
    AOT,
    COMPRESSORS,
    Average,
    ImageGrid,
    PruMerge,
    SlowFast,
    TSLLaVA,
    VideoTokens,
    VisionZip,
    build_compressor,
)
from stgridpool.budget import BudgetError
from stgridpool.compressor import Compressor
from stgridpool.contract.cases import SHAPES, clip, invented
from stgridpool.plan import Plan, Shape

REPOSITORY = Path(__file__).resolve().parents[2]
COME_AGAIN = (AOT, SlowFast, TSLLaVA, ImageGrid)  # gathered in a segment; a second pathway; a first frame; in tiles


@pytest.fixture(params=list(COMPRESSORS))
def compressor(request) -> Compressor:
    return build_compressor(request.param)


@cache
def plans_of(compressor: Compressor) -> dict[Shape, Plan]:
    """What the method decides for random tokens of each of `SHAPES`."""
    return {shape: compressor(clip(shape), invented(compressor, shape)).plan for shape in SHAPES}


@pytest.mark.parametrize("name", [name for name, method in COMPRESSORS.items() if method not in COME_AGAIN])
def test_tokens_stay_in_order_each_on_a_place_of_its_own(name):
    for shape, plan in plans_of(build_compressor(name)).items():
        assert plan.anchor.tolist() == sorted(set(plan.anchor.tolist())), shape
        left = VideoTokens(torch.zeros(plan.num_sources, 1), shape).through(replace(plan, reproduces=True))
        places = [tuple(place) for place in left.places().tolist()]
        assert places == sorted(set(places)), shape
        assert all(0 <= axis < side for place in places for axis, side in zip(place, left.shape, strict=True))


def test_weights_of_every_token_sum_to_one(compressor):
    if isinstance(compressor, VisionZip | PruMerge):
        compressor = replace(compressor, preset="corrected")  # the released ones add, see their tests
    for plan in plans_of(compressor).values():
        ones = replace(plan, reproduces=True).apply(torch.ones(plan.num_sources, 1))
        is_drawn = plan.sizes() > 0  # tiles of a picture may be blank
        assert bool(is_drawn.all()) or isinstance(compressor, ImageGrid)
        torch.testing.assert_close(ones, is_drawn[:, None].float())


def test_calling_is_planning_and_applying(compressor):
    shape = (17, 6, 7)
    tokens, evidence = clip(shape), invented(compressor, shape)
    out, plan = compressor(tokens, evidence)
    again = compressor.plan(VideoTokens.of(tokens), evidence)
    if plan.reproduces:
        torch.testing.assert_close(out, plan.apply(tokens))  # steps that are applied one by one round in between
        assert torch.equal(plan.apply(tokens), again.apply(tokens))
    assert torch.equal(plan.anchor, again.anchor)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("averge", "'averge', did you mean 'average'"),
        ("st-gridpool", "mean 'st_gridpool'"),
        ("qqq", "Available: none,"),
    ],
)
def test_unknown_names_are_answered(name, message):
    with pytest.raises(ValueError, match=message):
        build_compressor(name)


def test_unknown_options_are_answered():
    with pytest.raises(ValueError, match="nsp has no option 'kernelsize', did you mean 'kernel_size'"):
        build_compressor("nsp", kernelsize=3)
    with pytest.raises(ValueError, match="none has no option 'stride'"):
        build_compressor("none", stride=3)


def test_options_may_come_from_json():
    assert build_compressor("nsp", kernel_size=[2, 3], norm_order="inf") == build_compressor(
        "nsp", kernel_size=(2, 3), norm_order=math.inf
    )
    assert build_compressor("ptg", strides=[2, 4], grid_size=[4, 2]).strides == (2, 4)


def test_a_count_is_planned_for_the_budget_of_the_method_alone():
    assert Average().planned_count((2, 4, 4)) == 8
    for method in COMPRESSORS.values():
        assert list(signature(method.planned_count).parameters) == ["self", "shape", "total"]


def test_a_budget_that_leaves_nothing_is_refused():
    """As released, HoliTom rounds each frame's share of 4x4 tokens down."""
    method = build_compressor("holitom", preset="released", retention=0.01, inner_retention=1)
    tokens = torch.ones(2, 4, 4, 8)
    with pytest.raises(BudgetError, match=r"^HoliTom\(.*\) leaves none of 32 tokens: its budget is too small, ask for"):
        method(tokens, invented(method, (2, 4, 4)))


def test_every_method_has_its_file_its_test_and_its_row():
    methods = REPOSITORY / "stgridpool" / "compressors"
    names = {path.stem for path in methods.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert names - {"__init__"} == set(COMPRESSORS)
    for name, method in COMPRESSORS.items():
        module = f"stgridpool.compressors.{name}"
        assert method.__module__ in (module, f"{module}.{name}")  # a method of several files is a folder
        assert list((REPOSITORY / "tests" / "stgridpool" / "compressors").glob(f"**/test_{name}.py"))
        assert re.search(rf"^\| `{name}` \|", TEXT, flags=re.MULTILINE), f"docs/methods.md has no row for {name}"


def test_rows_say_golden_where_a_test_reads_golden_numbers_and_nowhere_else():
    """Those of a method are its own test file, and others that the first line of that names."""
    tests, page = REPOSITORY / "tests", (REPOSITORY / "docs" / "methods.md").read_text()
    table = page.partition("\n## All methods\n")[2].partition("\n## ")[0]
    fixtures = {"golden"}
    for path in (tests / "conftest.py", *tests.glob("stgridpool/**/conftest.py")):
        fixtures |= {name for name, asks in functions_of(path) if asks & fixtures}
    said, read = set(), set()
    for name in COMPRESSORS:
        [own] = tests.glob(f"stgridpool/compressors/**/test_{name}.py")
        named = re.findall(r"test_\w+\.py", own.read_text().partition("\n")[0])
        files = [own, *(path for other in named for path in tests.glob(f"**/{other}"))]
        read |= {name} if any(reads_golden(path, fixtures) for path in files) else set()
        [row] = re.findall(rf"^\| `{name}` \|.*$", table, flags=re.MULTILINE)
        said |= {name} if "golden" in row.split("|")[-2] else set()
    assert said == read
    assert {"nsp", "sttm", "prumerge", "earlytom_frames"} < read < set(COMPRESSORS)


def functions_of(path):
    """Name and parameters of each function of a file, in order."""
    functions = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))
    return [(one.name, {argument.arg for argument in one.args.args}) for one in functions]


def reads_golden(path, fixtures):
    """Whether a function of a file takes one of the fixtures, or the file names the folder itself."""
    is_named = any(
        isinstance(node, ast.Constant) and node.value == "golden" for node in ast.walk(ast.parse(path.read_text()))
    )
    return is_named or any(asks & fixtures for _, asks in functions_of(path))


def test_the_library_imports_only_downwards():
    code = "import sys, stgridpool; print([m for m in ('llava', 'lmms_eval', 'transformers') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert run.stdout.strip() == "[]"
