"""What every method must do, and what a budget is."""

import math
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from inspect import signature
from pathlib import Path

import pytest
import torch

from stgridpool import COMPRESSORS, Average, Budget, build_compressor
from stgridpool.compressor import Compressor

REPOSITORY = Path(__file__).resolve().parents[2]
SHAPES = [(1, 1, 1, 3), (1, 2, 2, 4), (3, 5, 4, 2), (9, 7, 7, 8), (16, 4, 6, 5), (33, 1, 3, 2), (8, 6, 1, 2)]


@pytest.fixture(params=list(COMPRESSORS))
def compressor(request) -> Compressor:
    return build_compressor(request.param)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_places_and_counts(compressor, shape):
    tokens = torch.randn(shape)
    out, plan = compressor(tokens)
    assert out.shape == (len(plan), shape[3])
    assert out.dtype == tokens.dtype
    assert plan.grid == shape[:3]
    assert plan.place.shape == (len(plan), 3)
    assert plan.place.dtype == torch.int64
    keys = [tuple(place) for place in plan.place.tolist()]
    assert keys == sorted(set(keys))
    assert all(0 <= axis < side for place in keys for axis, side in zip(place, plan.shape, strict=True))
    assert compressor.planned_count(shape[:3]) in (len(plan), None)
    assert compressor.planned_shape(shape[:3]) in (plan.shape, None)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_weights_of_every_token_sum_to_one(compressor, shape):
    plan = compressor.plan(torch.randn(shape))
    ones = plan.apply(torch.ones(math.prod(shape[:3]), 1))
    torch.testing.assert_close(ones, torch.ones(len(plan), 1))


def test_the_input_is_left_as_it_is(compressor):
    tokens = torch.randn(17, 6, 6, 4)
    before = tokens.clone()
    compressor(tokens)
    compressor.plan(tokens).apply(tokens)
    assert torch.equal(tokens, before)


@pytest.mark.parametrize("name", [name for name in COMPRESSORS if name != "max"])
def test_calling_is_planning_and_applying(name):
    tokens = torch.randn(17, 6, 7, 4)
    compressor = build_compressor(name)
    out, plan = compressor(tokens)
    assert torch.equal(out, plan.apply(tokens))
    assert torch.equal(out, compressor.plan(tokens).apply(tokens))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("magnitude", [1e-30, 1.0, 3e4, 1e38])
def test_half_precision_stays_close_and_never_gives_nan(compressor, dtype, magnitude):
    limit = torch.finfo(dtype).max
    tokens = (torch.randn(9, 4, 5, 64) * magnitude).clamp(-limit, limit).to(dtype)
    out, plan = compressor(tokens)
    assert out.dtype == dtype
    assert not out.isnan().any()
    if magnitude == 1.0:
        wide = compressor(tokens.float()).tokens
        assert (out.float() - wide).norm() < 0.01 * wide.norm()
    assert not plan.weights.isnan().any()


def test_the_repr_is_the_record(compressor):
    assert is_dataclass(compressor)
    namespace = {type(compressor).__name__: type(compressor), "inf": math.inf}
    assert eval(repr(compressor), namespace) == compressor  # noqa: S307
    assert replace(compressor) == compressor
    with pytest.raises(AttributeError):
        setattr(compressor, fields(compressor)[0].name if fields(compressor) else "x", 1)


@pytest.mark.parametrize("shape", [(4, 4, 8), (0, 4, 4, 8), (2, 4, 4, 0)])
def test_other_shapes_are_refused(compressor, shape):
    with pytest.raises(ValueError, match="tokens must be"):
        compressor(torch.zeros(shape))


def test_whole_numbers_are_refused(compressor):
    with pytest.raises(ValueError, match=r"floating dtype, got torch\.int64"):
        compressor(torch.zeros(2, 2, 2, 2, dtype=torch.int64))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("averge", "'averge', did you mean 'average'"),
        ("st-gridpool", "mean 'st_gridpool'"),
        ("qqq", "There are: none,"),
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


def test_budget_counts():
    grid = (4, 3, 5)
    assert Budget().count(grid) is None
    assert Budget(ratio=0.5).count(grid) == 30
    assert Budget(ratio=0.001).count(grid) == 1
    assert Budget(ratio=1.0).count(grid) == 60
    assert Budget(tokens=17).count(grid) == 17
    assert Budget(tokens=100).count(grid) == 60
    assert Budget(tokens_per_frame=7).count(grid) == 28


@pytest.mark.parametrize("grid", [(55, 14, 14), (64, 14, 14), (10, 1, 1), (1, 3, 3), (100, 27, 27), (4096, 27, 27)])
def test_no_share_loses_a_token_to_rounding(grid):
    total = math.prod(grid)
    for percent in range(1, 101):  # 0.7 * 10780 is 7545.999... in floating point
        assert Budget(ratio=percent / 100).count(grid) == max(1, percent * total // 100)
    for tokens in range(1, min(total, 2000) + 1):
        assert Budget(ratio=tokens / total).count(grid) == tokens


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.0}, "ratio must be a number above 0 and at most 1, got 0.0"),
        ({"ratio": 1.5}, "got 1.5"),
        ({"tokens": 0}, "tokens must be a whole number from 1 to 1000000000, got 0"),
        ({"tokens_per_frame": -1}, "tokens_per_frame must be a whole number from 1 to 1000000000, got -1"),
        ({"ratio": 0.5, "tokens": 3}, "given in one way"),
        ({"ratio": True}, "got True"),
        ({"ratio": math.nan}, "got nan"),
        ({"tokens": True}, "got True"),
    ],
)
def test_bad_budgets(options, message):
    with pytest.raises(ValueError, match=message):
        Budget(**options)


def test_a_count_is_planned_for_the_budget_of_the_method_alone():
    grid = (2, 4, 4)
    assert Average().planned_count(grid) == 8
    for method in COMPRESSORS.values():
        assert list(signature(method.planned_count).parameters) == ["self", "grid"]


def test_every_method_has_its_file_its_test_and_its_row():
    methods = REPOSITORY / "stgridpool" / "compressors"
    names = {path.stem for path in methods.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert names - {"__init__"} == set(COMPRESSORS)
    readme = (REPOSITORY / "README.md").read_text()
    for name, method in COMPRESSORS.items():
        module = f"stgridpool.compressors.{name}"
        assert method.__module__ in (module, f"{module}.{name}")  # a method of several files is a folder
        assert list((REPOSITORY / "tests" / "stgridpool" / "compressors").glob(f"**/test_{name}.py"))
        assert re.search(rf"^\| `{name}` \|", readme, flags=re.MULTILINE), f"README.md has no row for {name}"


def test_the_library_imports_only_downwards():
    code = "import sys, stgridpool; print([m for m in ('llava', 'lmms_eval', 'transformers') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert run.stdout.strip() == "[]"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cuda_equals_cpu(compressor, dtype):
    tokens = torch.randn(33, 9, 7, 64).to(dtype)
    here, there = compressor(tokens), compressor(tokens.cuda())
    assert there.tokens.device.type == "cuda"
    assert torch.equal(here.plan.place, there.plan.place.cpu())
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(there.tokens.cpu(), here.tokens, atol=tolerance, rtol=tolerance)
