"""Weighted sums of rows of a table, the kernel behind `stgridpool.rows.Rows`.

A program makes up to 512 columns of one row. It loads the source rows of up to eight entries at once, 16 bytes per
thread, so that enough loads are in flight to keep the memory busy. It reads a source row once per entry and writes
each output row once; with pooling windows that is one pass over the table and one over the output.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_MAX_COLUMNS = 512  # divides the widths of the 7B models, 3584 = 7 x 512
_MAX_ENTRIES = 8
_BYTES_PER_THREAD = 16
_THREADS_PER_WARP = 32


def weighted_gather(
    table: Tensor,
    sources: Tensor,
    offsets: Tensor,
    weights: Tensor,
    onto: Tensor | None = None,
    targets: Tensor | None = None,
) -> Tensor:
    """Sum weighted rows of `table`: (R, D) in its dtype, summed in float32; an empty row becomes zeros.

    Weights are first rounded to the dtype of `table`, as ``embedding_bag`` does.

    Args:
        table: (S, D), bf16, fp16 or float32, with any strides.
        sources: (M,) int64, the table row of each entry.
        offsets: (R + 1,) int64; row i has the entries from ``offsets[i]`` up to ``offsets[i + 1]``.
        weights: (M,) float32.
        onto: (R', D) contiguous, in the dtype of `table`. The sums are added to it in place, and it is returned.
        targets: (R,) int64, the row of `onto` to which each sum is added, without repeats; required with `onto`.
    """
    num_rows, width = offsets.numel() - 1, table.shape[1]
    out = table.new_empty(num_rows, width) if onto is None else onto
    if num_rows == 0 or width == 0:
        return out
    columns = min(_MAX_COLUMNS, triton.next_power_of_2(width))
    entries = min(_MAX_ENTRIES, triton.next_power_of_2(max(1, -(-sources.numel() // num_rows))))
    threads = columns * table.element_size() // _BYTES_PER_THREAD
    blocks = triton.cdiv(width, columns)
    with torch.cuda.device_of(table):
        _gather[(num_rows * blocks,)](
            table,
            sources,
            offsets,
            weights,
            out,
            targets,
            width,
            table.stride(0),
            table.stride(1),
            ENTRIES=entries,
            COLUMNS=columns,
            num_warps=max(1, threads // _THREADS_PER_WARP),
            enable_fp_fusion=True,  # the present default; triton has announced another one
        )
    return out


@triton.jit
def _gather(
    table,
    sources,
    offsets,
    weights,
    out,
    targets,
    width,
    row_stride,
    column_stride,
    ENTRIES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    blocks = tl.cdiv(width, COLUMNS)
    row = tl.program_id(0) // blocks
    column = tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS)
    is_column = column < width
    dtype = table.dtype.element_ty
    first = tl.load(offsets + row)
    last = tl.load(offsets + row + 1)
    total = tl.zeros([COLUMNS], tl.float32)
    for start in range(first, last, ENTRIES):
        entry = start + tl.arange(0, ENTRIES)
        is_entry = entry < last
        source = tl.load(sources + entry, mask=is_entry, other=0)
        weight = tl.load(weights + entry, mask=is_entry, other=0.0).to(dtype).to(tl.float32)
        place = source[:, None] * row_stride + column[None, :] * column_stride
        values = tl.load(table + place, mask=is_entry[:, None] & is_column[None, :], other=0.0)
        total += tl.sum(weight[:, None] * values.to(tl.float32), axis=0)
    made = total.to(dtype)
    target = row.to(tl.int64)
    if targets is not None:
        target = tl.load(targets + row)
        under = tl.load(out + target * width + column, mask=is_column, other=0.0)
        made = (made.to(tl.float32) + under.to(tl.float32)).to(dtype)
    tl.store(out + target * width + column, made, mask=is_column)
