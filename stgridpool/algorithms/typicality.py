"""Typicality of every token for its video and frame, and the share of a budget that each frame deserves.

A token is compared with the means of the video's and of its frame's tokens by Gaussian kernels of five widths. Tokens
far from both means say something of their own.

Everything follows from three reads of the features, block by block and in float32: how much each channel varies, the
mean directions, and the distances from them.

Letters: T frames of at most R tokens, N tokens, D width.

Source: VidCom2 (EMNLP 2025), arXiv 2505.14454.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from stgridpool.algorithms.blocks_of_rows import on_cpu, rows_at_a_time
from stgridpool.algorithms.sets import Sets
from stgridpool.plan import to_device
from stgridpool.video_tokens import VideoTokens

WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Of the kernels ``exp(-d^2 / (2 w))``, over squared distances of unit vectors."""
TEMPERATURE = 0.01
_CANCELS = 0.01
"""Share of a channel's mean square under which its variance is not computed as that minus the squared mean."""
_ENTRIES_ON_CPU, _ENTRIES_ON_GPU = 3 << 18, 1 << 25
"""Most features of a block, as far as one token or one frame allows: what a core's cache holds, or keeps a GPU busy."""
_FRAMES_ON_CPU = 4
"""Frames of a block: its products are one per frame, and those of different frames run on different cores."""
_TILE = 16
"""Rows that a matrix product on a CPU computes in one way; fewer differ in the last bit."""


class Typicality(NamedTuple):
    """Measure how near each token is to two means, each 0 to 5: the sum of five kernels.

    Attributes:
        of_video: (N,) float32, to the mean of all tokens.
        of_frame: (N,) float32, to the mean of the tokens of its frame.
        varies_little: (D,) bool, the channels that were compared: the half that varies least.
    """

    of_video: Tensor
    of_frame: Tensor
    varies_little: Tensor


def typicality(tokens: VideoTokens) -> Typicality:
    """Compare every token with the mean of the video and with that of its frame.

    Compared are directions: tokens are cut to the ``D // 2`` channels (at least one) of least variance over the video,
    of equal variances the first, and brought to length 1. Means are of those vectors and are not brought to length 1.
    A token of zeros stays zero.
    """
    frames = _Frames.of(tokens)
    variance = _variances(frames)
    if not bool(variance.isfinite().all()) or not bool((variance > 0).any()):  # squares overflow or vanish
        frames = frames.scaled()
        variance = _variances(frames)
    chosen = torch.zeros_like(variance)  # (D,)
    chosen[variance.argsort(stable=True)[: max(1, len(variance) // 2)]] = 1
    chosen = to_device(chosen, frames.space.device)
    scale, sums = frames.zeros(1, frames.longest), frames.zeros(1, len(chosen))
    for block, part, places in frames.blocks():
        cut = torch.mul(block, chosen, out=frames.space_for(block))
        lengths = torch.linalg.vector_norm(cut, dim=2)  # (t, r)
        scale[part, 0, places] = lengths.reciprocal_().nan_to_num_(0, 0, 0)
        sums[part] += scale[part, :, places] @ cut
    frame_mean = sums / frames.sizes.clamp_min(1)[:, None, None]  # (T, 1, D)
    video_mean = (sums.sum(0) / frames.sizes.sum())[None]  # (1, 1, D)
    products = frames.zeros(2, frames.longest)
    for block, part, places in frames.blocks():
        rows = frames.tiles(block).transpose(1, 2)  # (t, D, r); both means at once would take longer
        for row, mean in enumerate((video_mean.expand(len(block), 1, -1), frame_mean[part])):
            products[part, row, places] = (mean @ rows)[:, 0, : block.shape[1]]
    squares = [mean.square().sum(2).expand(len(sums), 1) for mean in (video_mean, frame_mean)]
    distances = (scale > 0) + torch.stack(squares, dim=1) - 2 * products * scale  # squared, (T, 2, R)
    both = frames.of_each_token(_kernels(distances).transpose(1, 2))  # (N, 2)
    return Typicality(both[:, 0], both[:, 1], chosen.bool())


def frame_scales(of_video: Tensor, tokens: VideoTokens) -> Tensor:
    """Return how much of a budget each frame deserves, relative to an equal share: (T,) float32, on average 1.

    ``1 + p - 1 / T``, where p is the softmax over frames of the mean of ``-of_video / 0.01``: one frame unlike all
    others gets nearly twice its share. A frame without tokens has p = 0.

    Args:
        of_video: (N,), see `Typicality`.
        tokens: Whose frames they are.
    """
    sets = Sets.within(tokens, "frame")
    sizes = sets.is_there.sum(1)
    mean = of_video[sets.index].where(sets.is_there, 0).sum(1) / sizes
    share = (-mean / TEMPERATURE).masked_fill(sizes == 0, -torch.inf).softmax(0)
    return 1 + share - share.mean()


@dataclass(frozen=True, eq=False)
class _Frames:
    """The tokens frame by frame.

    Attributes:
        features: (T, R, D) as they are, or (N, D) if frames differ in size.
        sets: Which tokens belong to each frame; None if they fill the lattice.
        sizes: (T,) int64.
        space: (t, r, D), a block of float32 to compute in: fresh memory costs more than the arithmetic. On the CPU a
            block is part of a few frames, on a GPU it is several whole ones.
        copied: Another one for features that are not float32, or not as they are; None if there is no need.
        scale: What the features are divided by.
    """

    features: Tensor
    sets: Sets | None
    sizes: Tensor
    space: Tensor
    copied: Tensor | None
    scale: float = 1.0

    @classmethod
    def of(cls, tokens: VideoTokens) -> _Frames:
        features, (frames, height, width) = tokens.features, tokens.shape
        sets = None if tokens.cell is None else Sets.within(tokens, "frame")
        longest = int(sets.sizes.max()) if sets else height * width
        step = _FRAMES_ON_CPU if on_cpu(features) else max(1, _ENTRIES_ON_GPU // (longest * features.shape[1]))
        step, rows = min(step, frames), longest
        if on_cpu(features):
            tiles = min(_ENTRIES_ON_CPU // (step * features.shape[1] * _TILE), -(-longest // _TILE))
            rows = max(1, tiles) * _TILE
        size = step, rows, features.shape[1]
        space = features.new_empty(size, dtype=torch.float32)
        sizes = torch.full((frames,), longest) if sets is None else sets.sizes
        table = features if sets else features.view(frames, longest, -1)
        copied = torch.empty_like(space) if sets or features.dtype != torch.float32 else None
        return cls(table, sets, to_device(sizes, features.device), space, copied)

    def scaled(self) -> _Frames:
        """Return the same tokens brought to magnitudes of at most 1."""
        largest = float(torch.stack(self.features.aminmax()).abs().max()) or 1.0
        scale = min(largest, torch.finfo(torch.float32).max)
        return replace(self, copied=torch.empty_like(self.space), scale=scale)

    def blocks(self) -> Iterator[tuple[Tensor, slice, slice]]:
        """Yield (t, r, D) float32, with zeros where no token is, its frames, and its places; frame after frame.

        A block holds until the next one, which may be in the same memory.
        """
        step, width = self.space.shape[:2]
        for start in range(0, len(self.sizes), step):
            part = slice(start, min(start + step, len(self.sizes)))
            for place in range(0, self.longest, width):
                places = slice(place, place + width)
                yield self._block(part, places), part, places

    def _block(self, part: slice, places: slice) -> Tensor:
        rows = self.features[part, places] if self.sets is None else self.features[self.sets.index[part, places]]
        if self.copied is None:
            return rows
        rows = self.copied[: rows.shape[0], : rows.shape[1]].copy_(rows)
        if self.sets is not None:
            rows *= self.sets.is_there[part, places, None]
        if self.scale != 1:
            largest = torch.finfo(torch.float32).max
            rows.clamp_(-largest, largest).div_(self.scale)  # a sum may have overflowed before
        return rows

    @property
    def longest(self) -> int:
        """Return R, the tokens of the largest frame."""
        return self.features.shape[1] if self.sets is None else self.sets.index.shape[1]

    def zeros(self, *shape: int) -> Tensor:
        """Return zeros (T, *shape), into which to write what is found for each frame."""
        return torch.zeros(len(self.sizes), *shape, device=self.space.device)

    def space_for(self, block: Tensor) -> Tensor:
        """Return as much of `space` as `block` is large."""
        return self.space[: block.shape[0], : block.shape[1]]

    def tiles(self, block: Tensor) -> Tensor:
        """Return the rows of `block`, and any others after them to whole tiles, so that equal rows get equal products.

        Which of equal tokens is kept would otherwise depend on where blocks end.
        """
        count = block.shape[1]
        if not on_cpu(block) or count % _TILE == 0:
            return block
        rows = self.space[: len(block), : -(-count // _TILE) * _TILE]
        rows[:, :count] = block
        return rows

    def of_each_token(self, values: Tensor) -> Tensor:
        """Return the rows (N, d) of values (T, R, d) in the order of the tokens."""
        rows = values.flatten(0, 1)
        if self.sets is None:
            return rows
        places = self.sets.is_there.flatten()
        return torch.empty_like(rows[places]).index_copy_(0, self.sets.index.flatten()[places], rows[places])


def _variances(frames: _Frames) -> Tensor:
    """Return the variance (D,) of each channel over the video, on the CPU."""
    sums, squares = frames.zeros(1, frames.space.shape[2]), frames.space.zero_()
    ones = torch.ones_like(squares[:, None, :, 0])  # (t, 1, r)
    for block, part, _ in frames.blocks():
        sums[part] += ones[: len(block), :, : block.shape[1]] @ block
        for rows in block.split(max(1, rows_at_a_time(block) // len(block)), dim=1):
            frames.space_for(rows).addcmul_(rows, rows)  # over blocks: to sum the squares of each would read them again
    moments = torch.stack([sums.sum((0, 1)), squares.sum((0, 1))]).cpu().double()
    mean, mean_square = (moments / int(frames.sizes.sum())).unbind()
    variance = mean_square - mean.square()
    inaccurate = (variance < _CANCELS * mean_square).nonzero().flatten()
    if len(inaccurate):
        variance[inaccurate] = _accurate_variances(frames, inaccurate)
    return variance.float()


def _accurate_variances(frames: _Frames, channels: Tensor) -> Tensor:
    """Return the variances of some channels in float64: they do not depend on the origin, here the first token."""
    device = torch.device("cpu") if frames.space.device.type == "mps" else frames.space.device  # MPS has no float64
    channels, sizes = to_device(channels, frames.space.device), frames.sizes.to(device)
    origin, sums, squares = None, [], []
    for block, part, places in frames.blocks():
        few = block[:, :, channels].to(device).double()
        origin = few[0, 0].clone() if origin is None else origin
        number = torch.arange(places.start, places.start + block.shape[1], device=device)
        few = (few - origin) * (number < sizes[part, None])[:, :, None]
        sums.append(few.sum((0, 1)))
        squares.append(few.square_().sum((0, 1)))
    count = sizes.sum()
    return ((torch.stack(squares).sum(0) - torch.stack(sums).sum(0).square() / count) / count).cpu()


def _kernels(squared_distance: Tensor) -> Tensor:
    """Return the sum of the kernels of all widths, in one order for every element."""
    total = torch.zeros_like(squared_distance)
    for width in WIDTHS:
        total += (-squared_distance / (2 * width)).exp()
    return total
