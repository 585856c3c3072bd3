"""Cosines of tokens with chosen partners, against torch's and by hand."""

import warnings

import pytest
import torch
from torch.nn import functional as F

from stgridpool.algorithms import partner_cosines as module
from stgridpool.algorithms.partner_cosines import cosines_in_frames, partner_cosines, row_products


def test_cosines_by_hand():
    rows = torch.tensor([[3.0, 4], [4, 3], [0, 2]])
    found = partner_cosines(rows, torch.tensor([[-1, 1], [0, 1], [0, -1]]))
    torch.testing.assert_close(found, torch.tensor([[-torch.inf, 0.96], [0.96, 1], [0.8, -torch.inf]]))


def test_fewer_rows_than_pairs_of_each():
    rows = torch.tensor([[3.0, 4]])
    assert partner_cosines(rows, torch.tensor([[0, -1]])).tolist() == [[1, -torch.inf]]


def test_what_has_no_direction_is_like_nothing():
    """Zeros, and features whose squares are 0 or infinite in float32."""
    odd = torch.tensor([[0.0, 0], [1e-30, 1e-30], [3e38, -3e38]])
    assert partner_cosines(odd, torch.arange(3)[:, None]).tolist() == [[0], [0], [0]]


def test_the_cosine_of_equal_rows_is_exactly_1():
    rows = torch.randn(50, 37, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    found = partner_cosines(rows, torch.arange(-50, 50).clamp_min(-1)[:, None])
    assert (found[50:] == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(5, 6, 40000), (40, 7, 64), (1, 3, 8)])
def test_frames_and_places_of_many_blocks(shape, dtype, monkeypatch):
    """Partners two frames back and one to the left, in blocks of 2 frames and one or more places."""
    monkeypatch.setattr(module, "_FRAMES", 2)
    monkeypatch.setattr(module, "_ENTRIES", 500)
    frames = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    number = torch.arange(shape[0] * shape[1]).view(shape[:2])
    partners = torch.full((*shape[:2], 2), -1)
    partners[2:, :, 0], partners[:, 1:, 1] = number[:-2], number[:, :-1]
    found = cosines_in_frames(frames, partners, frames_back=2, places_back=1)
    assert (found[..., 0][:2] == -torch.inf).all()
    assert (found[:, 0, 1] == -torch.inf).all()
    wide = frames.double()
    back = F.cosine_similarity(wide[2:], wide[:-2], dim=-1)
    left = F.cosine_similarity(wide[:, 1:], wide[:, :-1], dim=-1)
    torch.testing.assert_close(found[2:, :, 0], back.float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, 1:, 1], left.float(), atol=1e-5, rtol=0)


def test_nothing_is_said_about_a_beta_state():
    with warnings.catch_warnings(action="error"):
        partner_cosines(torch.ones(2, 3), torch.tensor([[-1], [0]]))


def test_products_of_two_lists_of_rows():
    rows = torch.tensor([[1.0, 2, 3], [0, 0, 0], [-1, 4, 0.5], [2, 2, 2]])
    others = torch.tensor([[1.0, 1, 1], [5, 5, 5], [2, 1, 4], [0, -3, 1]])
    assert row_products(rows, others).tolist() == [6, 0, 4, -4]
    assert row_products(rows[:1], others[:1]).tolist() == [6]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_device_but_the_cpu_computes_where_its_rows_are(dtype):
    """Torch's device without data stands in for Apple's and others; an index on the CPU beside it is an error."""
    frames, partners = torch.ones(4, 3, 5, dtype=dtype, device="meta"), torch.zeros(4, 3, 2, dtype=int, device="meta")
    assert cosines_in_frames(frames, partners, frames_back=1).device.type == "meta"
    assert partner_cosines(frames.flatten(0, 1), partners.flatten(0, 1)).shape == (12, 2)
    assert row_products(frames[0], frames[1]).device.type == "meta"


def test_other_devices_compute_the_same(monkeypatch):
    rows = torch.randn(30, 7, generator=torch.Generator().manual_seed(0))
    partners = torch.arange(-1, 29)[:, None]
    expected = F.cosine_similarity(rows[1:], rows[:-1])
    monkeypatch.setattr(module, "on_cpu", lambda features: False)
    torch.testing.assert_close(partner_cosines(rows, partners)[1:, 0], expected)
    torch.testing.assert_close(row_products(rows, rows), (rows * rows).sum(1))


def test_a_device_without_float64_computes_the_same():
    """Where the product of the squares is beyond float32; of equal ones exactly."""
    rows = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 1e30
    expected = (rows.double() * rows.flip(0).double()).sqrt().float()
    torch.testing.assert_close(module._root_in_float32(rows, rows.flip(0)), expected)
    assert torch.equal(module._root_in_float32(rows, rows), rows)
