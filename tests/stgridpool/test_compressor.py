"""What every method must do."""

import math
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from inspect import signature
from pathlib import Path

import pytest
import torch

from stgridpool import (
    COMPRESSORS,
    Average,
    PruMerge,
    SlowFast,
    TSLLaVA,
    VideoTokens,
    VisionZip,
    build_compressor,
    compress,
)
from stgridpool.compressor import Compressor

REPOSITORY = Path(__file__).resolve().parents[2]
TWO_PATHWAYS = (SlowFast, TSLLaVA)  # in the second, the first frame comes again
SHAPES = [(1, 1, 1, 3), (1, 2, 2, 4), (3, 5, 4, 2), (9, 7, 7, 8), (16, 4, 6, 5), (33, 1, 3, 2), (8, 6, 1, 2)]


@pytest.fixture(params=list(COMPRESSORS))
def compressor(request) -> Compressor:
    return build_compressor(request.param)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_places_and_counts(compressor, shape, invent):
    tokens = torch.randn(shape)
    out, plan = compressor(tokens, invent(compressor, tokens))
    assert out.shape == (len(plan), shape[3])
    assert out.dtype == tokens.dtype
    assert plan.num_sources == math.prod(shape[:3])
    assert plan.anchor.shape == (len(plan),)
    assert plan.anchor.dtype == torch.int64
    assert isinstance(compressor, TWO_PATHWAYS) or plan.anchor.tolist() == sorted(set(plan.anchor.tolist()))
    assert 0 <= int(plan.anchor.min()) <= int(plan.anchor.max()) < plan.num_sources
    left = VideoTokens(torch.zeros(plan.num_sources, 1), shape[:3]).through(replace(plan, reproduces=True))
    places = [tuple(place) for place in left.places().tolist()]
    assert isinstance(compressor, TWO_PATHWAYS) or places == sorted(set(places))
    assert all(0 <= axis < side for place in places for axis, side in zip(place, left.shape, strict=True))
    assert plan.shape is None or math.prod(plan.shape) == len(plan)
    assert compressor.planned_count(shape[:3]) in (len(plan), None)
    assert compressor.planned_shape(shape[:3]) == plan.shape


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_weights_of_every_token_sum_to_one(compressor, shape, invent):
    if isinstance(compressor, VisionZip | PruMerge):
        compressor = replace(compressor, preset="corrected")  # the released ones add, see their tests
    tokens = torch.randn(shape)
    plan = compressor(tokens, invent(compressor, tokens)).plan
    ones = replace(plan, reproduces=True).apply(torch.ones(math.prod(shape[:3]), 1))
    torch.testing.assert_close(ones, torch.ones(len(plan), 1))


def test_the_input_is_left_as_it_is(compressor, invent):
    tokens = torch.randn(17, 6, 6, 4)
    evidence = invent(compressor, tokens)
    before = tokens.clone()
    _, plan = compressor(tokens, evidence)
    plan.mean(tokens.flatten(0, 2))
    assert torch.equal(tokens, before)
    assert all(torch.equal(value, evidence[need]) for need, value in invent(compressor, tokens).items())


@pytest.mark.parametrize("name", [name for name in COMPRESSORS if name != "max"])
def test_calling_is_planning_and_applying(name, invent):
    tokens = torch.randn(17, 6, 7, 4)
    compressor = build_compressor(name)
    evidence = invent(compressor, tokens)
    out, plan = compressor(tokens, evidence)
    torch.testing.assert_close(out, plan.apply(tokens))  # steps that are applied one by one round in between
    assert torch.equal(plan.apply(tokens), compressor.plan(VideoTokens.of(tokens), evidence).apply(tokens))


@pytest.mark.parametrize("name", [name for name, method in COMPRESSORS.items() if method().needs])
def test_missing_evidence_is_named(name):
    compressor = build_compressor(name)
    with pytest.raises(ValueError, match=re.escape(repr(min(compressor.needs, key=repr)))):
        compressor(torch.randn(2, 4, 4, 3))


@pytest.mark.parametrize("name", [name for name, method in COMPRESSORS.items() if not method.needs_maps])
def test_methods_that_can_act_on_pruned_videos_do(name, invent):
    """Frames of 9, 0, 1 and 12 tokens: counts are met, and a frame keeps no more than it has."""
    cell = torch.cat([torch.arange(3, 12), torch.tensor([24]), torch.arange(36, 48)])
    compressor = build_compressor(name)
    evidence = invent(compressor, torch.zeros(1, 1, len(cell), 5))
    tokens = VideoTokens(torch.randn(len(cell), 5), (4, 3, 4), cell)
    left, plan = compress(compressor, tokens, evidence)
    assert len(left) == len(plan)
    assert compressor.planned_count((4, 3, 4), len(cell)) in (len(plan), None)
    assert plan.anchor.tolist() == sorted(set(plan.anchor.tolist()))
    assert torch.equal(left.cells(), cell[plan.anchor])
    assert plan.shape is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("magnitude", [1e-30, 1.0, 3e4, 1e38])
def test_half_precision_stays_close_and_never_gives_nan(compressor, dtype, magnitude, invent):
    limit = torch.finfo(dtype).max
    tokens = (torch.randn(9, 4, 5, 64) * magnitude).clamp(-limit, limit).to(dtype)
    evidence = invent(compressor, tokens)
    out, plan = compressor(tokens, evidence)
    assert out.dtype == dtype
    assert not out.isnan().any()
    if magnitude == 1.0:
        wide = compressor(tokens.float(), evidence).tokens
        assert (out.float() - wide).norm() < 0.01 * wide.norm()
    assert not plan.rows.weights.isnan().any()


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
def test_cuda_equals_cpu(compressor, dtype, invent):
    tokens = torch.randn(33, 9, 7, 64).to(dtype)
    here, there = (compressor(maps, invent(compressor, maps)) for maps in (tokens, tokens.cuda()))
    assert there.tokens.device.type == "cuda"
    assert torch.equal(here.plan.anchor, there.plan.anchor.cpu())
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(there.tokens.cpu(), here.tokens, atol=tolerance, rtol=tolerance)
