"""Batches that fit into memory."""

from types import SimpleNamespace

import pytest
import torch

from llava.model.vision_batches import CPU_BATCH, LARGEST_BATCH, fitting_batch_size, map_batches


def limited(limit, sizes):
    """Doubles its rows; runs out of memory above `limit` of them."""

    def double(batch):
        sizes.append(len(batch))
        if len(batch) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (batch * 2,)

    return double


@pytest.mark.parametrize(
    ("batch_size", "limit", "sizes", "fitting"),
    [
        (4, 9, [4, 4, 2], 4),
        (64, 9, [10, 5, 5], 5),
        (8, 3, [8, 4, 2, 2, 2, 2, 2], 2),
        (4, 1, [4, 2, *[1] * 10], 1),
    ],
)
def test_batches_are_halved_until_they_fit(batch_size, limit, sizes, fitting):
    rows, seen = torch.arange(10.0)[:, None], []
    (output,), size = map_batches(limited(limit, seen), rows, batch_size)
    assert torch.equal(output, rows * 2)
    assert (seen, size) == (sizes, fitting)


def test_several_tensors_keep_their_rows_in_the_order_of_the_images():
    """Also where there are several rows for an image."""

    def encode(batch):
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch, batch.expand(-1, 3).flatten()

    rows = torch.arange(5.0)[:, None]
    (output, patches), size = map_batches(encode, rows, 4)
    assert torch.equal(output, rows)
    assert torch.equal(patches, torch.arange(5.0).repeat_interleave(3))
    assert size == 2


def test_one_image_must_fit():
    with pytest.raises(torch.OutOfMemoryError):
        map_batches(limited(0, []), torch.zeros(3, 1), 2)


def test_other_errors_are_not_held_for_a_lack_of_memory():
    def fail(batch):
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        map_batches(fail, torch.zeros(3, 1), 2)


def tower(device):
    return SimpleNamespace(device=torch.device(device), num_patches=729, hidden_size=1152, dtype=torch.bfloat16)


def test_what_fits(monkeypatch):
    assert fitting_batch_size(tower("cpu")) == CPU_BATCH
    free = 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    assert fitting_batch_size(tower("cuda")) == 9  # 16 * 729 * 1152 * 2 bytes are 26.9 MB, a quarter of 1 GiB is 268 MB
    free = 10**11
    assert fitting_batch_size(tower("cuda")) == LARGEST_BATCH
    free = 1
    assert fitting_batch_size(tower("cuda")) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_full_gpu():
    """A batch that asks for more than the GPU has, as the caching allocator reports it."""
    total = torch.cuda.mem_get_info()[1]

    def hungry(batch):
        torch.empty(total // 5 * len(batch), dtype=torch.uint8, device="cuda")
        return (batch,)

    (output,), size = map_batches(hungry, torch.zeros(8, 1, device="cuda"), 8)
    assert output.shape == (8, 1)
    assert size < 8
