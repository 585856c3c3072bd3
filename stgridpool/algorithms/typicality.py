"""Typicality of every token for its video and frame, and the share of a budget that each frame deserves.

A token is compared with the means of the video's and of its frame's tokens by Gaussian kernels of five widths. Tokens
far from both means say something of their own.

Everything follows from three reads of the features, block by block and in float32: how much each channel varies, the
mean directions, and the distances from them.

Letters: T frames of at most R tokens, N tokens, D width.

Source: VidCom2 (EMNLP 2025), arXiv 2505.14454.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stgridpool.algorithms.frame_blocks import FrameBlocks
from stgridpool.algorithms.sets import Sets
from stgridpool.plan import to_device
from stgridpool.video_tokens import VideoTokens

WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Of the kernels ``exp(-d^2 / (2 w))``, over squared distances of unit vectors."""
TEMPERATURE = 0.01
_CANCELS = 0.01
"""Share of a channel's mean square under which its variance is not computed as that minus the squared mean."""


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
    frames = FrameBlocks.of(tokens)
    variance = _variances(frames)
    if not bool(variance.isfinite().all()) or not bool((variance > 0).any()):  # squares overflow or vanish
        frames = frames.scaled()
        variance = _variances(frames)
    chosen = torch.zeros_like(variance)  # (D,)
    chosen[variance.argsort(stable=True)[: max(1, len(variance) // 2)]] = 1
    chosen = to_device(chosen, frames.space.device)
    sums, scales, products = frames.zeros(len(chosen)), list[Tensor](), list[Tensor]()
    for blocks, sum_of_frame in frames.groups(sums):
        of_chosen = chosen.expand(len(sum_of_frame), 1, -1)
        for block in blocks:
            squares = torch.mul(block.rows, block.rows, out=frames.space_for(block.rows))
            scale = torch.bmm(of_chosen, squares.transpose(1, 2)).rsqrt_().nan_to_num_(0, 0, 0)
            scales.append(block.of_new(scale))
            sum_of_frame.baddbmm_(scales[-1], block.new)
    sums.masked_fill_(chosen == 0, 0)
    frame_mean = sums / frames.sizes.clamp_min(1)[:, None, None]  # (T, 1, D)
    video_mean = sums.sum(0, keepdim=True) / frames.num_tokens  # (1, 1, D)
    means = torch.cat([video_mean.expand_as(frame_mean), frame_mean], dim=1)  # (T, 2, D)
    for blocks, means_of_frame in frames.groups(means):
        for block in blocks:
            products.append(block.of_new(torch.bmm(means_of_frame, block.rows.transpose(1, 2))))
    scale, product = frames.joined(scales), frames.joined(products)  # (T, 1, R) and (T, 2, R)
    distances = (scale > 0) + means.square().sum(2, keepdim=True) - 2 * product * scale  # squared, (T, 2, R)
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


def _variances(frames: FrameBlocks) -> Tensor:
    """Return the variance (D,) of each channel over the video, on the CPU."""
    sums, squares = frames.zeros(frames.space.shape[2]), frames.space.zero_()
    ones = torch.ones_like(squares[:, None, :, 0])  # (t, 1, r)
    for blocks, sum_of_frame in frames.groups(sums):
        for block in blocks:
            rows = block.new
            frames.space_for(rows).addcmul_(rows, rows)  # over blocks: to sum the squares of each would take longer
            sum_of_frame.baddbmm_(ones[: len(rows), :, : rows.shape[1]], rows)
    moments = torch.stack([sums.sum((0, 1)), squares.sum((0, 1))]).cpu().double()
    mean, mean_square = (moments / frames.num_tokens).unbind()
    variance = mean_square - mean.square()
    inaccurate = (variance < _CANCELS * mean_square).nonzero().flatten()
    if len(inaccurate):
        variance[inaccurate] = _accurate_variances(frames, inaccurate)
    return variance.float()


def _accurate_variances(frames: FrameBlocks, channels: Tensor) -> Tensor:
    """Return the variances of some channels in float64: they do not depend on the origin, here the first token."""
    device = torch.device("cpu") if frames.space.device.type == "mps" else frames.space.device  # MPS has no float64
    channels, sizes = to_device(channels, frames.space.device), frames.sizes.to(device)
    origin, sums, squares = None, [], []
    for blocks, sizes_of_frames in frames.groups(sizes):
        start = 0
        for block in blocks:
            few = block.new[:, :, channels].to(device).double()
            origin = few[0, 0].clone() if origin is None else origin
            number = torch.arange(start, start + few.shape[1], device=device)
            few = (few - origin) * (number < sizes_of_frames[:, None])[:, :, None]
            sums.append(few.sum((0, 1)))
            squares.append(few.square_().sum((0, 1)))
            start += few.shape[1]
    count = sizes.sum()
    return ((torch.stack(squares).sum(0) - torch.stack(sums).sum(0).square() / count) / count).cpu()


def _kernels(squared_distance: Tensor) -> Tensor:
    """Return the sum of the kernels of all widths, in one order for every element."""
    total = torch.zeros_like(squared_distance)
    for width in WIDTHS:
        total += (-squared_distance / (2 * width)).exp()
    return total
