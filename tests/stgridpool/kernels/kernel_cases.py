"""What the kernels must give. Run by `test_kernels.py`: through triton's interpreter, or on a GPU where there is one.

The interpreter must be asked for before triton is imported, hence a process of its own. It cuts float32 to bf16 where
a GPU rounds, so bf16 is compared up to one unit in the last place.
"""

import math
import os

import pytest
import torch

from stgridpool import NSP, PTG, Average, Bilinear, STGridPool, VideoTokens, kernels
from stgridpool.kernels import norm_weights, weighted_gather
from stgridpool.plan import make
from stgridpool.rows import Rows

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if IS_INTERPRETED else "cuda"
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}

every_dtype = pytest.mark.parametrize("dtype", kernels.DTYPES, ids=str)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def launched(monkeypatch) -> list[str]:
    """The kernels launched so far; they are chosen for CPU tensors too where they are interpreted."""
    names: list[str] = []

    def watch(module, name):
        launch = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **named: names.append(name) or launch(*args, **named))

    watch(weighted_gather, "weighted_gather")
    watch(norm_weights, "norm_weights")
    if IS_INTERPRETED:
        monkeypatch.setattr(kernels, "can_run", lambda *tensors: not any(tensor.requires_grad for tensor in tensors))
    else:
        monkeypatch.setitem(kernels._STATE, "on", True)
    return names


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal up to the rounding of the dtype of `found`, relative to the largest number of `expected`."""
    assert found.shape == expected.shape
    limit = TOLERANCES[found.dtype] * max(1e-30, expected.abs().max().item())
    # torch.testing would import for seconds
    assert torch.allclose(found.double().cpu(), expected.double().cpu(), atol=limit, rtol=0)


def some_rows(counts: list[int], num_sources: int) -> Rows:
    offsets = torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()])
    sources = torch.randint(num_sources, (sum(counts),))
    return Rows(sources, offsets, torch.randn(sum(counts)))


def dense(rows: Rows, num_sources: int) -> torch.Tensor:
    matrix = torch.zeros(len(rows), num_sources, dtype=torch.float64)
    return matrix.index_put_((rows.row_of_entry(), rows.sources), rows.weights.double(), accumulate=True)


def gather(table, rows, *more):
    moved = [tensor.to(DEVICE) for tensor in (table, rows.sources, rows.offsets, rows.weights, *more)]
    return weighted_gather.weighted_gather(*moved)


@every_dtype
@pytest.mark.parametrize(
    ("width", "counts"),
    [(1, [0, 2, 1]), (32, [0, 4, 3, 0]), (130, [1, 1]), (130, [21, 0, 1]), (130, [0]), (1152, [0, 4, 3, 0])],
    ids=str,
)
def test_gather_is_the_matrix_product(dtype, width, counts):
    table, rows = torch.randn(9, width).to(dtype), some_rows(counts, 9)
    out = gather(table, rows)
    assert out.dtype == dtype
    close(out, dense(rows, 9) @ table.double())


@every_dtype
def test_gather_rounds_to_the_nearest(dtype):
    """Products of two halves are exact in float32, so a row of one entry is rounded once, ties to even.

    `embedding_bag` on a CPU rounds ties of bf16 away from zero: the plain path there is no measure of that.
    """
    table, rows = torch.randn(9, 400).to(dtype), some_rows([1, 1, 0, 1], 9)
    products = table.double()[rows.sources] * rows.weights.to(dtype).double()[:, None]
    expected = products.float().to(dtype)  # (3, 400)
    found = gather(table, rows)[[0, 1, 3]].cpu()
    if dtype == torch.bfloat16 and IS_INTERPRETED:
        close(found, expected)
    else:
        assert torch.equal(found, expected)


@pytest.mark.parametrize("table", [torch.randn(9, 20)[:, 3:14], torch.randn(11, 9).T, torch.randn(1, 11).expand(9, 11)])
def test_gather_takes_any_strides(table):
    rows = some_rows([2, 3], 9)
    close(gather(table, rows), dense(rows, 9) @ table.double())


def test_gather_of_nothing():
    assert gather(torch.randn(3, 4), some_rows([], 3)).shape == (0, 4)
    assert gather(torch.randn(3, 0), some_rows([1, 2], 3)).shape == (2, 0)
    assert gather(torch.randn(0, 4), some_rows([0, 0], 1)).tolist() == [[0.0] * 4] * 2


def test_gather_reaches_beyond_32_bits():
    width, last = 2**12, 2**19
    table = torch.empty(last + 1, width, dtype=torch.bfloat16, device=DEVICE)  # 2^31 numbers; unused pages take no room
    table[last] = 3.0
    rows = Rows(torch.tensor([last]), torch.tensor([0, 1]), torch.tensor([2.0]))
    assert gather(table, rows).unique().tolist() == [6.0]


@every_dtype
def test_gather_adds_onto_rows(dtype):
    table, rows, onto = torch.randn(6, 70).to(dtype), some_rows([2, 0, 5], 6), torch.randn(5, 70).to(dtype)
    expected = onto.double()
    expected[[0, 2, 4]] += dense(rows, 6) @ table.double()
    out = gather(table, rows, onto.clone(), torch.tensor([0, 2, 4]))
    close(out, expected)
    assert torch.equal(out[[1, 3]].cpu(), onto[[1, 3]])


# The interpreter runs a kernel's programs one after the other, so the videos are short.
METHODS = [
    Average(),
    Average(kernel_size=3, padding=1),
    Bilinear(),
    PTG(strides=(1, 2), grid_size=2),
    NSP(),
    NSP(norm_order=1, scale=3.0),
    NSP(norm_order=math.inf, scale=-2.0),
    NSP(norm_order=0.5),
    NSP(norm_order=3, kernel_size=(2, 3)),
    NSP(kernel_size=3, stride=2, padding=1),
    NSP(kernel_size=3, ceil_mode=True, scale=0.0),
    NSP(kernel_size=9),
    STGridPool(),
    STGridPool(strides=(1, 2), grid_size=2, kernel_size=3, padding=1, ceil_mode=True),
]


@pytest.mark.parametrize(
    ("method", "dtype"),
    [(method, torch.float32) for method in METHODS]
    + [(method, dtype) for method in (Average(), NSP()) for dtype in (torch.bfloat16, torch.float16)]
    + [(STGridPool(), torch.bfloat16)],
    ids=str,
)
def test_methods_give_what_the_plain_path_gives(method, dtype, launched, monkeypatch):
    frames = 8 if method == STGridPool() else 4 if isinstance(method, PTG | STGridPool) else 2  # as mosaics need
    height, width = (2, 2) if frames > 2 else (3, 4)
    tokens = torch.randn(frames, height, width, 24).to(DEVICE, dtype)
    before = tokens.clone()
    (found, plan), decided = method(tokens), method.plan(VideoTokens.of(tokens), {})
    applied = decided.apply(tokens)
    assert torch.equal(tokens, before)
    assert ("norm_weights" in launched) == isinstance(method, NSP | STGridPool)
    assert "weighted_gather" in launched
    monkeypatch.setattr(kernels, "can_run", lambda *tensors: False)
    launched.clear()
    expected, plain = method(tokens)
    assert not launched
    close(found, expected)
    close(applied, expected)
    rows, plain_rows = plan.rows, plain.rows
    assert torch.equal(rows.weights, decided.rows.weights)
    assert torch.equal(rows.sources, plain_rows.sources)
    is_input = rows.sources < plan.num_sources
    assert torch.allclose(rows.weights[is_input], plain_rows.weights[is_input], atol=1e-6, rtol=1e-5)
    limit = TOLERANCES[dtype]  # the mosaics that are weighed are rounded themselves
    assert torch.allclose(rows.weights, plain_rows.weights, atol=limit, rtol=limit)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_mosaics_give_what_the_plain_path_gives(dtype, launched, monkeypatch):
    tokens = torch.randn(4, 2, 2, 24).to(DEVICE, dtype)
    plan = PTG(strides=(1, 2), grid_size=2)(tokens).plan
    assert len(plan.made) == 2
    found = make(tokens.flatten(0, 2), plan.made)
    assert launched
    monkeypatch.setattr(kernels, "can_run", lambda *tensors: False)
    for level, expected in zip(found, make(tokens.flatten(0, 2), plan.made), strict=True):
        close(level, expected)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 1, 7, 1), (1, 2, 2, 1152), (3, 5, 4, 130)], ids=str)
def test_pooling_of_other_shapes(shape, launched, monkeypatch):
    tokens = torch.randn(shape, device=DEVICE)
    found = NSP()(tokens).tokens
    assert launched == ["norm_weights", "weighted_gather"]
    monkeypatch.setattr(kernels, "can_run", lambda *tensors: False)
    close(found, NSP()(tokens).tokens)


def test_pooling_of_tokens_that_are_not_contiguous(launched):
    tokens = torch.randn(4, 2, 3, 8, device=DEVICE).transpose(0, 2)
    found, plan = NSP()(tokens)
    assert launched == ["norm_weights", "weighted_gather"]
    assert torch.equal(found, NSP()(tokens.contiguous()).tokens)
    close(plan.apply(tokens), found)


@pytest.mark.parametrize(("dtype", "value"), [(torch.float16, 6e4), (torch.bfloat16, 3e38), (torch.float32, 3e38)])
@pytest.mark.parametrize("order", [1, 2, 8, math.inf])
def test_norms_beyond_their_range(dtype, value, order, launched):
    tokens = torch.zeros(1, 2, 2, 64, dtype=dtype, device=DEVICE)
    tokens[0, 0, 0] = value
    for scale, weights in [(4.0, [1.0, 0.0, 0.0, 0.0]), (-4.0, [0.0, 1 / 3, 1 / 3, 1 / 3]), (0.0, [0.25] * 4)]:
        launched.clear()
        plan = NSP(norm_order=order, scale=scale).plan(VideoTokens.of(tokens), {})
        assert launched == ["norm_weights"]
        assert plan.rows.weights.tolist() == pytest.approx(weights)
    assert NSP(norm_order=order, scale=4.0)(tokens).tokens.isfinite().all()  # the largest value alone


def test_nan_spoils_its_window_alone(launched):
    tokens = torch.randn(1, 2, 4, 8, device=DEVICE)
    tokens[0, 0, 0, 0] = math.nan
    out = NSP()(tokens).tokens
    assert launched == ["norm_weights", "weighted_gather"]
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


def test_large_windows_are_weighed_by_the_plain_path(launched, monkeypatch):
    tokens = torch.randn(2, 4, 4, 24, device=DEVICE)
    by_kernel = NSP()(tokens).tokens
    launched.clear()
    monkeypatch.setattr(kernels, "_MAX_TILE", 4 * 32 - 1)
    plain = NSP()(tokens).tokens
    assert launched == ["weighted_gather"]
    close(plain, by_kernel)


def test_gradients_take_the_plain_path(launched):
    tokens = torch.randn(8, 4, 4, 2, device=DEVICE, requires_grad=True)
    out, plan = STGridPool(strides=(1, 2), grid_size=2)(tokens)
    out.sum().backward()
    assert not launched
    assert (tokens.grad.sum() / 2).item() == pytest.approx(len(plan))
