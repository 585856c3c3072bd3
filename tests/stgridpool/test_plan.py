"""Plan: constructors, applying, composing and flattening, against dense matrices; files."""

import math

import pytest
import torch
from safetensors.torch import save_file

from stgridpool import NSP, PTG, Average, Max, NoCompression, Plan, STGridPool, VideoTokens
from stgridpool.plan import MergedTokensError, make
from stgridpool.rows import Rows


def plan_of(compressor, *shape):
    return compressor(torch.randn(shape)).plan


@pytest.fixture
def handmade(make_rows) -> Plan:
    """Five sources; two levels of made rows, the second from the first; an empty row, a source used twice."""
    first = make_rows([(0, 1.0), (1, 2.0)], [(4, 1.0)])  # rows 5 and 6
    second = make_rows([(2, 1.0), (5, 0.5), (6, 3.0)])  # row 7
    own = make_rows([(0, 1.0), (0, 0.5)], [], [(7, 1.0)], [(3, 2.0), (5, -1.0), (7, 1.0)])
    return Plan(own, 5, torch.tensor([0, 1, 1, 3]), (first, second), (1, 2, 2))


X = torch.tensor([[1.0], [10.0], [100.0], [1000.0], [10000.0]])
E5, E7 = 1 + 2 * 10.0, 100 + 21 / 2 + 3 * 10000.0  # the made rows of X that the output needs


def test_apply_handmade(handmade):
    assert handmade.apply(X).flatten().tolist() == [1.5, 0.0, E7, 2000 - E5 + E7]
    assert [table.flatten().tolist() for table in make(X, handmade.made)] == [[E5, 10000.0], [E7]]


def test_apply_equals_the_dense_matrix(handmade, dense):
    x = torch.randn(5, 7)
    torch.testing.assert_close(handmade.apply(x), dense(handmade) @ x)


@pytest.mark.parametrize("frames", [8, 16, 17])
def test_flatten_is_the_same_matrix(frames, dense):
    plan = plan_of(STGridPool(strides=(2, 2), grid_size=(2, 4)), frames, 3, 4, 5)
    assert len(plan.made) == 2
    flat = plan.flatten()
    assert flat.made == ()
    torch.testing.assert_close(dense(flat), dense(plan))


def test_flatten_handmade(handmade, dense):
    flat = handmade.flatten()
    torch.testing.assert_close(dense(flat), dense(handmade))
    assert flat.flatten() is flat
    assert (flat.shape, flat.num_sources, flat.anchor.tolist()) == ((1, 2, 2), 5, [0, 1, 1, 3])


def test_keep(dense):
    plan = Plan.keep(torch.tensor([4, 0, 4]), 6)
    assert torch.equal(dense(plan), torch.eye(6)[[4, 0, 4]])
    assert (len(plan), plan.num_sources, plan.shape, plan.anchor.tolist()) == (3, 6, None, [4, 0, 4])
    assert Plan.keep(torch.arange(4), 4, (1, 2, 2)).shape == (1, 2, 2)
    assert torch.equal(plan.apply(torch.arange(12.0).view(6, 2)), torch.tensor([[8.0, 9.0], [0.0, 1.0], [8.0, 9.0]]))


def test_merge_takes_means(dense):
    plan = Plan.merge(torch.tensor([1, 0, 1, 1]), torch.tensor([1, 0]))
    assert torch.equal(dense(plan), torch.tensor([[0, 1, 0, 0], [1 / 3, 0, 1 / 3, 1 / 3]]))
    assert (plan.num_sources, plan.anchor.tolist(), plan.sizes().tolist()) == (4, [1, 0], [1, 3])


def test_merge_leaves_out_what_is_in_no_group(dense):
    group, anchor = torch.tensor([-1, 2, 0, -1, 2]), torch.tensor([2, 3, 1])
    expected = torch.tensor([[0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1 / 2, 0, 0, 1 / 2]])
    assert torch.equal(dense(Plan.merge(group, anchor)), expected)
    weight = torch.tensor([9.0, 0.75, 2.0, 9.0, 0.25])
    expected = torch.tensor([[0, 0, 2, 0, 0], [0, 0, 0, 0, 0], [0, 0.75, 0, 0, 0.25]])
    assert torch.equal(dense(Plan.merge(group, anchor, weight)), expected)
    assert Plan.merge(group, anchor, weight.double()).rows.weights.dtype == torch.float32
    assert len(Plan.merge(torch.full((4,), -1), anchor[:0]).apply(torch.ones(4, 2))) == 0


def test_merge_may_be_told_that_all_are_in_a_group(dense):
    group, anchor = torch.tensor([1, 0, 1]), torch.tensor([1, 0])
    assert torch.equal(dense(Plan.merge(group, anchor, drops=False)), dense(Plan.merge(group, anchor)))


def test_concat(handmade, dense):
    kept = Plan.keep(torch.tensor([3, 3]), 5)
    both = Plan.concat([handmade, kept, handmade])
    torch.testing.assert_close(dense(both), torch.cat([dense(handmade), dense(kept), dense(handmade)]))
    x = torch.randn(5, 3)
    torch.testing.assert_close(both.apply(x), dense(both) @ x)
    torch.testing.assert_close(dense(both.flatten()), dense(both))
    assert both.anchor.tolist() == [0, 1, 1, 3, 3, 3, 0, 1, 1, 3]
    assert (both.shape, both.num_sources, len(both.made)) == (None, 5, 4)
    assert Plan.concat([kept, kept]).kept().tolist() == [3, 3, 3, 3]


def test_concat_reproduces_only_if_all_do():
    maps = torch.randn(2, 4, 4, 3)
    average, largest = Average()(maps).plan, Max()(maps).plan
    assert Plan.concat([average, average]).reproduces
    assert not Plan.concat([average, largest]).reproduces


def test_concat_refuses_plans_for_different_tokens():
    with pytest.raises(ValueError, match=r"must be for the same tokens, got plans for \[4, 5\] tokens"):
        Plan.concat([Plan.keep(torch.arange(2), 5), Plan.keep(torch.arange(2), 4)])
    with pytest.raises(ValueError, match=r"got plans for \[\]"):
        Plan.concat([])


def test_then_is_the_matrix_product(dense):
    first = plan_of(PTG(strides=(1, 2), grid_size=2), 8, 4, 6, 3)
    second = plan_of(Average(kernel_size=(2, 3)), 8, 4, 6, 3)
    both = first.then(second)
    torch.testing.assert_close(dense(both), dense(second) @ dense(first))
    assert both.made == first.made != ()
    assert both.num_sources == first.num_sources
    assert both.shape == (8, 2, 2)
    assert torch.equal(both.anchor, second.anchor)  # temporal gridding leaves every place where it was


def test_then_flattens_the_made_rows_of_the_second_plan(dense):
    first = plan_of(Average(), 8, 4, 4, 3)
    second = plan_of(PTG(strides=(1,), grid_size=2), 8, 2, 2, 3)
    both = first.then(second)
    assert both.made == ()
    torch.testing.assert_close(dense(both), dense(second) @ dense(first))


def test_then_composes_ragged_plans_by_their_counts(dense):
    pruned = Plan.keep(torch.tensor([9, 1, 4, 7, 6]), 12)
    merged = Plan.merge(torch.tensor([0, 1, 0, -1, 1]), torch.tensor([2, 4]))
    both = pruned.then(merged)
    assert both.anchor.tolist() == [4, 6]  # the tokens 2 and 4 of the first plan's output
    assert both.rows.sources.tolist() == [9, 4, 1, 6]
    torch.testing.assert_close(dense(both), dense(merged) @ dense(pruned))
    again = both.then(Plan.keep(torch.tensor([1]), 2))
    assert (again.anchor.tolist(), again.rows.sources.tolist(), again.rows.weights.tolist()) == ([6], [1, 6], [0.5] * 2)
    twice = pruned.then(Plan.keep(torch.tensor([3, 0]), 5))
    assert twice.kept().tolist() == twice.anchor.tolist() == [7, 9]


def test_then_reproduces_only_if_both_do():
    maps = torch.randn(2, 4, 4, 3)
    following = Plan.keep(torch.arange(3), 8)
    assert Average()(maps).plan.then(following).reproduces
    assert not Max()(maps).plan.then(following).reproduces


def test_then_refuses_another_number_of_tokens():
    plan = plan_of(Average(), 2, 4, 4, 3)
    with pytest.raises(ValueError, match=r"second plan is for 32 tokens, but the first one outputs 8"):
        plan.then(plan)


def test_kept(handmade, make_rows):
    assert Plan.keep(torch.tensor([4, 0, 4]), 6).kept().tolist() == [4, 0, 4]
    assert Plan(make_rows([(2, 1.0)], [(0, 1.0)]), 3, torch.tensor([2, 0])).kept().tolist() == [2, 0]
    through_made = Plan(make_rows([(3, 1.0)]), 3, torch.tensor([0]), (make_rows([(1, 1.0)]),))
    assert through_made.kept().tolist() == [1]
    halved = Plan(make_rows([(2, 0.5)], [(0, 1.0)]), 3, torch.tensor([2, 0]))
    for plan in (handmade, halved, plan_of(Average(), 1, 2, 2, 3)):
        with pytest.raises(MergedTokensError, match="this plan merges tokens"):
            plan.kept()


def test_sizes(handmade):
    # In terms of sources: row 0 has 0 twice, row 2 is made of 2, 0, 1, 4, row 3 of 3, 0, 1, 2, 4.
    assert handmade.sizes().tolist() == [1, 0, 4, 5]
    assert plan_of(Average(ceil_mode=True), 1, 3, 3, 2).sizes().tolist() == [4, 2, 2, 1]
    assert Plan.keep(torch.tensor([3, 1]), 4).sizes().tolist() == [1, 1]


def test_mean(make_rows):
    values = torch.tensor([[2.0], [4.0], [8.0]])
    plan = Plan(make_rows([(0, 1.0), (1, 3.0)], [(2, 0.5)], []), 3, torch.tensor([0, 2, 1]))
    assert plan.mean(values).flatten().tolist() == [(2 + 3 * 4) / 4, 8.0, 0.0]
    pooled = plan_of(Max(), 1, 2, 2, 3)  # its values do not follow, but which tokens a window holds does
    assert pooled.mean(torch.tensor([[1.0], [2.0], [3.0], [6.0]])).tolist() == [[3.0]]


def test_weighted(dense, handmade):
    doubled = handmade.weighted(2 * handmade.rows.weights)
    torch.testing.assert_close(dense(doubled), 2 * dense(handmade))
    for rows in (Rows.of(torch.arange(2)), Rows.identity(2, torch.device("cpu"))):
        plan = Plan(rows, 2, torch.arange(2)).weighted(torch.tensor([2.0, 3.0]))
        assert plan.apply(torch.ones(2, 1)).tolist() == [[2], [3]]


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (32, 3)])
def test_apply_takes_maps_or_rows(shape):
    plan = plan_of(Average(), 2, 4, 4, 3)
    assert plan.apply(torch.ones(shape)).tolist() == [[1.0] * 3] * 8


@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (33, 3), (32,), (4, 2, 4, 3, 1), (4, 8, 3)])
def test_apply_refuses_other_rows(shape):
    plan = plan_of(Average(), 2, 4, 4, 3)
    with pytest.raises(ValueError, match=r"for 32 tokens, \(S, D\) or \(T, H, W, D\), got a tensor of"):
        plan.apply(torch.ones(shape))


def test_apply_refuses_to_make_up_values():
    maps = torch.randn(2, 4, 4, 3)
    plan = Max()(maps).plan
    with pytest.raises(ValueError, match="does not determine the values of its output: call the compressor instead"):
        plan.apply(maps)


def test_apply_takes_what_is_not_contiguous():
    tokens = torch.randn(4, 4, 3, 2).transpose(0, 2)  # (3, 4, 4, 2)
    plan = Average()(tokens).plan
    torch.testing.assert_close(plan.apply(tokens), plan.apply(tokens.contiguous()))


def test_apply_serves_any_aligned_rows():
    """Positions averaged with the plan of features."""
    plan = plan_of(Average(), 2, 4, 4, 8)
    frame, row, column = torch.meshgrid(torch.arange(2.0), torch.arange(4.0), torch.arange(4.0), indexing="ij")
    positions = torch.stack([frame, row, column], dim=-1).view(-1, 3)
    expected = [[t, y + 0.5, x + 0.5] for t in (0, 1) for y in (0, 2) for x in (0, 2)]
    assert plan.apply(positions).tolist() == expected


def test_gradients_flow_to_the_tokens(dense):
    tokens = torch.randn(8, 4, 4, 2, dtype=torch.float64, requires_grad=True)
    plan = PTG(strides=(1, 2), grid_size=2)(tokens).plan
    plan.apply(tokens).sum().backward()
    torch.testing.assert_close(tokens.grad.view(-1, 2)[:, 0].float(), dense(plan).sum(0))


@pytest.mark.parametrize("method", [STGridPool(strides=(1, 2), grid_size=2), NSP()], ids=lambda m: type(m).__name__)
def test_made_rows_that_deciding_took_serve_the_very_same_tokens_only(method, dense):
    tokens = VideoTokens.of(torch.randn(8, 4, 4, 3))
    plan = method.plan(tokens, {})
    assert plan.known.tokens is tokens.features
    for other in (tokens.features, tokens.features.clone(), torch.randn(128, 3), torch.randn(8, 4, 4, 5)):
        expected = dense(plan) @ other.reshape(128, -1)
        torch.testing.assert_close(plan.apply(other), expected)
    assert method(tokens.maps()).plan.known is None  # it would keep the tokens alive
    assert plan.then(Plan.keep(torch.arange(3), len(plan))).known is None


def test_a_plan_is_small():
    plan = plan_of(STGridPool(), 64, 27, 27, 1)
    tensors = [plan.rows.sources, plan.rows.offsets, plan.rows.weights, plan.anchor]
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) < 1_000_000


def test_to_moves_every_tensor():
    plan = plan_of(STGridPool(window=4, levels=2), 8, 4, 4, 2).to("meta")
    rows = [plan.rows, *plan.made]
    moved = [plan.anchor, *(tensor for one in rows for tensor in (one.sources, one.offsets, one.weights))]
    moved += [tensor for one in rows for part in one.parts or () for tensor in (part.sources, part.entries)]
    assert len(plan.rows.parts) == 3
    assert {tensor.device.type for tensor in moved} == {"meta"}


def test_no_compression_is_the_identity(dense):
    assert torch.equal(dense(plan_of(NoCompression(), 2, 2, 3, 1)), torch.eye(12))


@pytest.mark.parametrize(("device", "waits"), [("meta", False), ("cpu", True)])
def test_only_copies_to_the_cpu_are_waited_for(handmade, monkeypatch, device, waits):
    asked = []
    move = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *a, **k: asked.append(k["non_blocking"]) or move(self, *a, **k)
    )
    handmade.to(device)
    assert set(asked) == {not waits}


@pytest.mark.parametrize("method", [STGridPool(strides=(1, 2), grid_size=2), Max(), NoCompression()], ids=repr)
def test_a_plan_is_saved_and_loaded(method, tmp_path, dense):
    plan = plan_of(method, 8, 4, 4, 3)
    plan.save(tmp_path / "plan.safetensors")
    loaded = Plan.load(tmp_path / "plan.safetensors")
    assert torch.equal(dense(loaded), dense(plan))
    assert torch.equal(loaded.anchor, plan.anchor)
    assert (loaded.shape, loaded.num_sources, loaded.reproduces) == (plan.shape, plan.num_sources, plan.reproduces)
    assert [len(level) for level in loaded.made] == [len(level) for level in plan.made]
    values = torch.randn(math.prod((8, 4, 4)), 2)
    torch.testing.assert_close(loaded.mean(values), plan.mean(values))


def test_a_pruners_plan_is_saved_and_loaded(tmp_path):
    Plan.keep(torch.tensor([5, 2]), 6).save(str(tmp_path / "kept"))
    loaded = Plan.load(str(tmp_path / "kept"))
    assert loaded.kept().tolist() == [5, 2]
    assert (loaded.shape, loaded.num_sources) == (None, 6)


def test_other_files_hold_no_plan(tmp_path):
    save_file({"x": torch.ones(1)}, tmp_path / "other.safetensors")
    facts = {"stgridpool.plan": '{"num_sources": 1, "shape": null, "reproduces": true}'}
    save_file({"x": torch.ones(1)}, tmp_path / "half.safetensors", facts)
    Plan.keep(torch.tensor([5, 2]), 6).save(tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-9])
    (tmp_path / "text").write_text("5, 2")
    (tmp_path / "empty").touch()
    for name in ("other.safetensors", "half.safetensors", "cut", "text", "empty"):
        with pytest.raises(ValueError, match=rf"{name} does not contain a plan"):
            Plan.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        Plan.load(tmp_path / "missing")


def test_a_plan_that_keeps_everything_copies_nothing():
    tokens = torch.randn(6, 4)
    plan = Plan.keep_all(6, tokens.device, (1, 2, 3))
    assert plan.apply(tokens).data_ptr() == tokens.data_ptr()
    assert plan.kept().tolist() == plan.anchor.tolist() == [0, 1, 2, 3, 4, 5]
    assert plan.shape == (1, 2, 3)
