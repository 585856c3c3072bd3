"""Plan: applying, composing, flattening, against dense matrices."""

import pytest
import torch

from stgridpool import PTG, Average, NoCompression, STGridPool
from stgridpool.plan import ExtraStep, Patch, Plan, Rows


def dense(plan: Plan) -> torch.Tensor:
    """The plan as a matrix (N, S), written out entry by entry."""

    def matrix(rows: Rows, columns: int) -> torch.Tensor:
        out = torch.zeros(len(rows), columns)
        for row in range(len(rows)):
            for entry in range(int(rows.offsets[row]), int(rows.offsets[row + 1])):
                out[row, rows.sources[entry]] += rows.weights[entry]
        return out

    extra = torch.zeros(plan.num_extra, plan.num_sources)

    def with_patch(rows: Rows, patch: Patch | None) -> torch.Tensor:
        out = matrix(rows, plan.num_sources)
        if patch is not None:
            out[patch.targets] += matrix(patch.rows, plan.num_extra) @ extra
        return out

    for step in plan.steps:
        extra[step.slots] = with_patch(step.rows, step.patch)
    return with_patch(plan, plan.patch)


def rows(*entries: list[tuple[int, float]]) -> Rows:
    """Rows from (source, weight) pairs."""
    flat = [pair for row in entries for pair in row]
    offsets = torch.tensor([0, *torch.tensor([len(row) for row in entries]).cumsum(0).tolist()])
    return Rows(torch.tensor([s for s, _ in flat], dtype=torch.int64), offsets, torch.tensor([w for _, w in flat]))


@pytest.fixture
def handmade() -> Plan:
    """Five sources, two extra rows made in two steps, an empty row, a source used twice."""
    steps = (
        ExtraStep(torch.tensor([0, 1]), rows([(0, 1.0), (1, 2.0)], [(4, 1.0)])),
        ExtraStep(torch.tensor([1]), rows([(2, 1.0)]), Patch(torch.tensor([0]), rows([(0, 0.5), (1, 3.0)]))),
    )
    own = rows([(0, 1.0), (0, 0.5)], [], [(3, 2.0)])
    place = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 0, 2]])
    patch = Patch(torch.tensor([1, 2]), rows([(1, 1.0)], [(0, -1.0), (1, 1.0)]))
    return Plan(**vars(own), place=place, grid=(1, 1, 5), shape=(1, 1, 3), num_extra=2, steps=steps, patch=patch)


def test_apply_handmade(handmade):
    # extra rows: e0 = x0 + 2 x1, e1 = x2 + e0 / 2 + 3 x4
    x = torch.tensor([[1.0], [10.0], [100.0], [1000.0], [10000.0]])
    e0, e1 = 21.0, 100 + 10.5 + 30000.0
    assert handmade.apply(x).flatten().tolist() == [1.5, e1, 2000 - e0 + e1]


def test_apply_equals_the_dense_matrix(handmade):
    x = torch.randn(5, 7)
    torch.testing.assert_close(handmade.apply(x), dense(handmade) @ x)


@pytest.mark.parametrize("frames", [8, 16, 17])
def test_flatten_is_the_same_matrix(frames):
    plan = STGridPool(strides=(2, 2), grid_size=(2, 4)).plan(torch.randn(frames, 3, 4, 5))
    assert plan.num_extra > 0
    flat = plan.flatten()
    assert (flat.num_extra, flat.steps, flat.patch) == (0, (), None)
    torch.testing.assert_close(dense(flat), dense(plan))


def test_flatten_handmade(handmade):
    torch.testing.assert_close(dense(handmade.flatten()), dense(handmade))


def test_then_is_the_matrix_product():
    tokens = torch.randn(8, 4, 6, 3)
    first = PTG(strides=(1, 2), grid_size=2).plan(tokens)
    second = Average(kernel_size=(2, 3)).plan(tokens)
    both = first.then(second)
    torch.testing.assert_close(dense(both), dense(second) @ dense(first))
    assert both.num_extra == first.num_extra > 0
    assert both.grid == first.grid
    assert both.shape == (8, 2, 2)
    assert torch.equal(both.place, second.place)


def test_then_flattens_the_extra_rows_of_the_second_plan():
    tokens = torch.randn(8, 4, 4, 3)
    first = Average().plan(tokens)
    second = PTG(strides=(1,), grid_size=2).plan(torch.randn(8, 2, 2, 3))
    torch.testing.assert_close(dense(first.then(second)), dense(second) @ dense(first))


def test_then_refuses_another_grid():
    plan = Average().plan(torch.randn(2, 4, 4, 3))
    with pytest.raises(ValueError, match=r"grid of \(2, 4, 4\).*8 tokens.*\(2, 2, 2\)"):
        plan.then(plan)


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (32, 3)])
def test_apply_takes_tokens_by_grid_or_by_row(shape):
    plan = Average().plan(torch.randn(2, 4, 4, 3))
    assert plan.apply(torch.ones(shape)).tolist() == [[1.0] * 3] * 8


@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (33, 3), (32,), (4, 2, 4, 3)])
def test_apply_refuses_other_rows(shape):
    plan = Average().plan(torch.randn(2, 4, 4, 3))
    with pytest.raises(ValueError, match=r"for tokens of shape \(2, 4, 4, D\) or \(32, D\), got"):
        plan.apply(torch.ones(shape))


def test_apply_takes_what_is_not_contiguous():
    tokens = torch.randn(4, 4, 3, 2).transpose(0, 2)  # (3, 4, 4, 2)
    plan = Average().plan(tokens)
    torch.testing.assert_close(plan.apply(tokens), plan.apply(tokens.contiguous()))


def test_apply_serves_any_aligned_rows():
    """Positions averaged with the plan of features."""
    features = torch.randn(2, 4, 4, 8)
    plan = Average().plan(features)
    frame, row, column = torch.meshgrid(torch.arange(2.0), torch.arange(4.0), torch.arange(4.0), indexing="ij")
    positions = torch.stack([frame, row, column], dim=-1).view(-1, 3)
    expected = [[t, y + 0.5, x + 0.5] for t in (0, 1) for y in (0, 2) for x in (0, 2)]
    assert plan.apply(positions).tolist() == expected


def test_gradients_flow_to_the_tokens():
    tokens = torch.randn(8, 4, 4, 2, dtype=torch.float64, requires_grad=True)
    plan = PTG(strides=(1, 2), grid_size=2).plan(tokens)
    plan.apply(tokens).sum().backward()
    torch.testing.assert_close(tokens.grad.view(-1, 2)[:, 0].float(), dense(plan).sum(0))


def test_rows_take():
    matrix = rows([(0, 1.0)], [], [(1, 2.0), (2, 3.0)])
    taken = matrix.take(torch.tensor([2, 0, 2, 1]))
    assert taken.sources.tolist() == [1, 2, 0, 1, 2]
    assert taken.offsets.tolist() == [0, 2, 3, 5, 5]
    assert taken.weights.tolist() == [2.0, 3.0, 1.0, 2.0, 3.0]


def test_a_plan_is_small():
    tokens = torch.zeros(64, 27, 27, 1)
    plan = STGridPool().plan(tokens)
    tensors = [plan.sources, plan.offsets, plan.weights, plan.place]
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) < 1_000_000


def test_to_moves_every_tensor():
    plan = STGridPool(window=4, levels=2).plan(torch.randn(8, 4, 4, 2)).to("meta")
    step = plan.steps[1]
    moved = [plan.sources, plan.place, plan.patch.targets, plan.patch.rows.weights, step.slots, step.patch.rows.sources]
    assert {tensor.device.type for tensor in moved} == {"meta"}


def test_no_compression_is_the_identity():
    plan = NoCompression().plan(torch.randn(2, 2, 3, 1))
    assert torch.equal(dense(plan), torch.eye(12))


@pytest.mark.parametrize(("device", "waits"), [("meta", False), ("cpu", True)])
def test_only_copies_to_the_cpu_are_waited_for(handmade, monkeypatch, device, waits):
    asked = []
    move = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *a, **k: asked.append(k["non_blocking"]) or move(self, *a, **k)
    )
    handmade.to(device)
    assert set(asked) == {not waits}
