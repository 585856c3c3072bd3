"""Test what every method must satisfy: counts, places, values, dtypes, records."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from stgridpool.chain import Chain
from stgridpool.compressor import Compressor, compress_tokens, is_frozen_dataclass
from stgridpool.contract.cases import SHAPES, SHARED, clip, decided, invented
from stgridpool.plan import Plan, Shape
from stgridpool.rows import Rows
from stgridpool.scorer import Scorer
from stgridpool.video_tokens import VideoTokens

CELLS = torch.cat([torch.arange(3, 12), torch.tensor([24]), torch.arange(36, 48)])
"""Tokens on a lattice of (4, 3, 4): frames of 9, 0, 1 and 12."""

DECIDED_TWICE = ((9, 7, 7), (64, 3, 3))
"""The largest of `SHAPES`, on which a method must decide the same again."""


def test_it_leaves_the_tokens_that_it_plans(compressor: Compressor) -> None:
    """Counts are those planned, places exist, and tokens, evidence and torch's random numbers stay as they were."""
    random_state = torch.get_rng_state()
    for shape in SHAPES:
        tokens, evidence = clip(shape), invented(compressor, shape)
        out, plan = compressor(tokens, evidence)
        assert out.shape == (len(plan), 8), shape
        assert plan.num_sources == math.prod(shape), shape
        assert plan.anchor.dtype == torch.int64
        assert 0 <= int(plan.anchor.min()) <= int(plan.anchor.max()) < plan.num_sources, shape
        assert compressor.planned_count(shape) in (len(plan), None), shape
        assert compressor.planned_shape(shape) in (plan.shape, None), shape
        assert plan.shape is None or math.prod(plan.shape) == len(plan), shape
        assert torch.equal(tokens, clip(shape)), "it changed its input"
        assert all(torch.equal(value, evidence[need]) for need, value in invented(compressor, shape).items())
        if shape in DECIDED_TWICE:
            assert torch.equal(out, compressor(tokens, evidence).tokens), "it decides differently the second time"
    assert torch.equal(torch.get_rng_state(), random_state), "it draws from torch's global generator, or seeds it"


def test_it_acts_on_pruned_videos_or_says_that_it_cannot(compressor: Compressor) -> None:
    """Frames of 9, 0, 1 and 12 tokens: counts are met, and places are those of the tokens kept."""
    shape: Shape = (4, 3, 4)
    tokens = VideoTokens(clip((1, 1, len(CELLS))).flatten(0, 2), shape, CELLS.clone())
    evidence = invented(compressor, shape, len(CELLS))
    if any(step.compressor.needs_maps for step in compressor.steps()):
        with pytest.raises(ValueError, match="do not fill a lattice"):
            compress_tokens(compressor, tokens, evidence)
        return
    left, plan = compress_tokens(compressor, tokens, evidence)
    assert torch.equal(tokens.features, clip((1, 1, len(CELLS))).flatten(0, 2)), "it changed its input"
    assert torch.equal(tokens.cells(), CELLS)
    assert len(left) == len(plan)
    assert compressor.planned_count(shape, len(CELLS)) in (len(left), None)
    assert torch.equal(left.cells(), CELLS[plan.anchor])


def test_its_plan_is_a_matrix(compressor: Compressor) -> None:
    """The output is that of the plan, written out as a dense matrix."""
    for shape in ((1, 1, 1), (3, 5, 4), SHARED):
        tokens = clip(shape)
        is_shared = shape == SHARED
        out, plan = decided(compressor) if is_shared else compressor(tokens, invented(compressor, shape))
        matrix = dense(plan)
        assert bool(matrix.isfinite().all())
        assert torch.equal(matrix != 0, dense(plan.flatten()) != 0)
        if plan.reproduces:
            torch.testing.assert_close(out, matrix @ tokens.flatten(0, 2), atol=1e-4, rtol=1e-4)


def test_tokens_need_not_be_contiguous(compressor: Compressor) -> None:
    """A view whose strides are unusual gives the same tokens."""
    tokens = clip(SHARED)
    view = tokens.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    assert not view.is_contiguous()
    assert torch.equal(compressor(view, invented(compressor, SHARED)).tokens, decided(compressor).tokens)


def test_what_is_finite_stays_finite(compressor: Compressor) -> None:
    """Zeros, equal tokens, duplicates, one huge token, tiny values; the dtype stays. Sums of huge ones may be inf."""
    shape = (9, 4, 5)
    evidence = invented(compressor, shape, width=16)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for name, tokens in _adversarial(shape).items():
            if name.startswith("all huge") and isinstance(compressor, Chain):
                continue  # the first method of a chain may add huge values to more than there are
            limit = torch.finfo(dtype).max
            if name == ("tiny values" if limit < 1e5 else "all huge"):
                continue  # zeros in float16, and far from huge in the others
            narrow = tokens.clamp(-limit, limit).to(dtype)
            out, plan = compressor(narrow, evidence)
            assert out.dtype == dtype, name
            if isinstance(compressor, Scorer):
                scores = compressor.score(VideoTokens.of(narrow), {need: evidence[need] for need in compressor.needs})
                assert not bool(scores.isnan().any()), f"it scores {name} in {dtype} as NaN"
            assert not bool(out.isnan().any()), (name, dtype)
            assert name.startswith("all huge") or bool(out.isfinite().all()), (name, dtype)
            assert bool(plan.rows.weights.isfinite().all()), (name, dtype)
            assert compressor.planned_count(shape) in (len(out), None), (name, dtype)


def _adversarial(shape: Shape) -> dict[str, Tensor]:
    ordinary = clip(shape, 16)
    one_huge = ordinary.clone()
    one_huge[4, 2, 2] = 3e4
    return {
        "zeros": torch.zeros_like(ordinary),
        "equal tokens": torch.ones_like(ordinary),
        "equal frames": ordinary[:1].expand(len(ordinary), -1, -1, -1),
        "one huge token": one_huge,
        "tiny values": ordinary * 1e-30,
        "all huge": ordinary * 3e4,
        "all huge in float32": ordinary * 1e38,
    }


def test_half_precision_stays_close(compressor: Compressor) -> None:
    """The plan of bfloat16 tokens, applied to them and to the same tokens in float32, gives the same to 1 %."""
    tokens = clip((9, 4, 5), 64).bfloat16()
    out, plan = compressor(tokens, invented(compressor, (9, 4, 5), width=64))
    if plan.reproduces:
        wide = plan.apply(tokens.float())
        assert (out.float() - wide).norm() < 0.01 * wide.norm()


def test_a_plan_can_be_saved(compressor: Compressor, tmp_path) -> None:  # type: ignore[no-untyped-def]  # pytest's
    """A plan read from its file gives the same tokens."""
    out, plan = decided(compressor)
    plan.save(tmp_path / "plan.safetensors")
    again = Plan.load(tmp_path / "plan.safetensors")
    assert torch.equal(again.anchor, plan.anchor)
    assert (again.shape, again.num_sources, again.reproduces) == (plan.shape, plan.num_sources, plan.reproduces)
    if plan.reproduces:
        torch.testing.assert_close(again.apply(clip(SHARED)), out, atol=1e-5, rtol=1e-5)


def test_its_repr_is_its_record(compressor: Compressor) -> None:
    """A frozen dataclass, whose repr builds an equal one."""
    for method in compressor.methods if isinstance(compressor, Chain) else [compressor]:
        assert is_frozen_dataclass(type(method)), f"{type(method).__name__} lacks @dataclass(frozen=True)"
        assert type(method).__doc__
        options = [option for option in fields(method) if option.init]
        hidden = [one.name for one in options if not one.compare or f"{one.name}=" not in repr(method)]
        assert not hidden, f"its repr or its equality leaves out {hidden}"
        namespace = {type(method).__name__: type(method), "inf": math.inf}
        assert eval(repr(method), namespace) == method  # noqa: S307
        assert replace(method) == method
        with pytest.raises(AttributeError):
            setattr(method, fields(method)[0].name if fields(method) else "x", 1)


def test_bad_input_is_refused(compressor: Compressor) -> None:
    """Tokens of other dimensions, none at all, whole numbers, and missing evidence."""
    evidence = invented(compressor, (2, 4, 4))
    for shape in ((4, 4, 8), (0, 4, 4, 8), (2, 4, 4, 0)):
        with pytest.raises(ValueError, match="tokens must be"):
            compressor(torch.zeros(shape), evidence)
    with pytest.raises(ValueError, match=r"floating dtype, got torch\.int64"):
        compressor(torch.zeros(2, 4, 4, 8, dtype=torch.int64), evidence)
    if compressor.needs:
        with pytest.raises(ValueError, match="needs evidence"):
            compressor(clip((2, 4, 4)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_the_cpu(compressor: Compressor) -> None:
    """The same decision and the same values to rounding, for every dtype."""
    evidence = invented(compressor, (33, 9, 7), width=64)
    on_cuda = {need: value.cuda() for need, value in evidence.items()}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        tokens = clip((33, 9, 7), 64).to(dtype)
        here, there = compressor(tokens, evidence), compressor(tokens.cuda(), on_cuda)
        assert there.tokens.device.type == "cuda"
        assert torch.equal(here.plan.anchor, there.plan.anchor.cpu()), dtype
        tolerance = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(there.tokens.cpu(), here.tokens, atol=tolerance, rtol=tolerance)


def dense(plan: Plan) -> Tensor:
    """Write a plan out as a matrix (N, S): made rows level by level, then the output."""
    known = torch.eye(plan.num_sources)
    for level in plan.made:
        known = torch.cat([known, _matrix(level, len(known)) @ known])
    return _matrix(plan.rows, len(known)) @ known


def _matrix(rows: Rows, num_columns: int) -> Tensor:
    places = torch.stack([rows.row_of_entry(), rows.sources])
    return torch.sparse_coo_tensor(places, rows.weights, (len(rows), num_columns)).to_dense()
