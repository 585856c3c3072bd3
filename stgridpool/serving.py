"""Pruning in serving engines: counts and masks as vLLM asks for them, and a check that a server really pruned.

vLLM fixes the number of video tokens when it reads the prompt, before any frame is encoded, and asks for a mask with
exactly that many True values afterwards. Only methods that select tokens fit into that interface; methods that merge
need precomputed embeddings.

Source: vLLM's ``vllm/multimodal/evs.py`` and its VidCom2 beside it; Efficient Video Sampling, arXiv 2510.14624;
VidCom2, arXiv 2505.14454.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from stgridpool.compressor import Compressor
from stgridpool.compressors import build_compressor
from stgridpool.options import number, whole_number
from stgridpool.plan import MergedTokensError, Shape
from stgridpool.pruning_rate import RateBudgeted

_MOST = 1_000_000_000
PRUNED, NOT_PRUNED, NOTHING_TO_PRUNE, UNEXPECTED = "pruned", "not pruned", "nothing to prune", "unexpected"


@dataclass(frozen=True)
class VideoPruning:
    """A selecting method as the two functions of vLLM's pruning interface, which share its pruning rate q.

    ``evs`` and ``vidcom2`` keep as many tokens as vLLM's methods of these names. Other methods keep as many as
    ``vidcom2``: ``int(total * (1 - q))`` in float arithmetic, but at least one token per frame on average.

    Attributes:
        method: Name of a method that has a budget and only selects, see `build_compressor`.
        options: Its options, without a budget.

    Raises:
        ValueError: If there is no such method or option, or the method merges tokens, has no budget, needs anything
            besides the tokens, or counts only afterwards.
    """

    method: str = "evs"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (16, 4, 4)  # enough frames for methods that merge only in long videos
        compressor = self._compressor(shape, 0.5)
        if compressor.needs:
            wanted = ", ".join(sorted(map(repr, compressor.needs)))
            raise ValueError(f"{self.method} needs {wanted}: a serving engine passes only the tokens")
        if compressor.planned_count(shape) is None:
            raise ValueError(f"{compressor!r} cannot tell how many tokens it keeps: choose another preset or method")
        generator = torch.Generator().manual_seed(0)
        self._kept(compressor, torch.randn(*shape, 8, generator=generator))

    def compute_retained_tokens_count(self, tokens_per_frame: int, num_frames: int, q: float) -> int:
        """Return the number of tokens kept of one video, which is known before it is encoded.

        Args:
            tokens_per_frame: Tokens of a frame after spatial merging, at least 1.
            num_frames: Frames after temporal merging, at least 1.
            q: Pruning rate: fraction of the tokens to drop, 0 to 1 (exclusive).

        Raises:
            ValueError: If an argument is out of its range.
        """
        whole_number("tokens_per_frame", tokens_per_frame, 1, _MOST)
        whole_number("num_frames", num_frames, 1, _MOST)
        shape = (num_frames, 1, tokens_per_frame)
        planned = self._compressor(shape, q).planned_count(shape)
        if planned is None:
            raise ValueError(f"{self.method} cannot tell how many tokens of {shape} it keeps")
        return planned

    def compute_retention_mask(
        self, video_embeds: Tensor, video_size_thw: Tensor | Sequence[int], spatial_merge_size: int, q: float
    ) -> Tensor:
        """Return which tokens of one video to keep.

        Args:
            video_embeds: (T * h * w, D), the encoded video; h and w are H and W divided by `spatial_merge_size`,
                rounded down.
            video_size_thw: (T, H, W) before spatial merging.
            spatial_merge_size: Patches along each side of a token, at least 1.
            q: Pruning rate, see `compute_retained_tokens_count`.

        Returns:
            (T * h * w,) bool, with `compute_retained_tokens_count` True values, in the order of `video_embeds`.

        Raises:
            ValueError: If an argument is out of its range, the sizes contradict each other, or the method has kept
                another number of tokens than planned.
        """
        frames, height, width = (int(size) for size in video_size_thw)
        merge = whole_number("spatial_merge_size", spatial_merge_size, 1, max(1, min(height, width)))
        shape = (frames, height // merge, width // merge)
        if video_embeds.dim() != 2 or len(video_embeds) != math.prod(shape) or not len(video_embeds):
            raise ValueError(
                f"a video of {(frames, height, width)} has {math.prod(shape)} tokens after merging {merge}x{merge} "
                f"patches, got embeddings of shape {tuple(video_embeds.shape)}"
            )
        count = self.compute_retained_tokens_count(shape[1] * shape[2], frames, q)
        kept = self._kept(self._compressor(shape, q), video_embeds.reshape(*shape, -1))
        mask = torch.zeros(len(video_embeds), dtype=torch.bool, device=video_embeds.device)
        mask[kept] = True
        if int(mask.sum()) != count:
            raise ValueError(f"{self.method} has kept {int(mask.sum())} tokens of {shape} and planned {count}")
        return mask

    def _compressor(self, shape: Shape, q: float) -> Compressor:
        """Build the method for a video of `shape` and the rate `q`."""
        rate = number("q", q, 0, 1)
        if rate == 1:
            raise ValueError("q must be below 1: a rate of 1 would drop everything")
        method = build_compressor(self.method, **self.options)
        if isinstance(method, RateBudgeted):
            return build_compressor(self.method, **self.options, pruning_rate=rate)
        if "tokens" not in (option.name for option in fields(method)):
            raise ValueError(f"{self.method} has no budget of tokens, so that no pruning rate can be met")
        total = math.prod(shape)
        return build_compressor(self.method, **self.options, tokens=max(shape[0], int(total * (1.0 - rate))))

    def _kept(self, compressor: Compressor, maps: Tensor) -> Tensor:
        try:
            return compressor(maps).plan.kept()
        except MergedTokensError as error:
            raise ValueError(
                f"{self.method} merges tokens, which a mask cannot express: give the engine precomputed embeddings"
            ) from error


@dataclass(frozen=True)
class ServedVideo:
    """What a server reported about one request with one video.

    Attributes:
        prompt_tokens: Length of the prompt as the server counted it (``usage.prompt_tokens``).
        other_tokens: Tokens of that prompt that are not the video's: text, separators and timestamps. The same request
            without pruning has `other_tokens` plus all tokens of the video.
        tokens_per_frame: Tokens of a frame after spatial merging.
        num_frames: Frames after temporal merging.
    """

    prompt_tokens: int
    other_tokens: int
    tokens_per_frame: int
    num_frames: int

    def __post_init__(self) -> None:
        for name, least in (("prompt_tokens", 1), ("other_tokens", 0), ("tokens_per_frame", 1), ("num_frames", 1)):
            whole_number(name, getattr(self, name), least, _MOST)


def pruning_happened(video: ServedVideo, q: float, pruning: VideoPruning) -> str:
    """Say whether a server pruned a video, from the number of tokens that it reported.

    A model without the pruning interface ignores the engine's flags without a word, so that a benchmark of "pruned"
    requests may measure dense ones.

    Args:
        video: What the server reported.
        q: The pruning rate that the server was started with.
        pruning: The method that it was started with.

    Returns:
        One of `PRUNED`: exactly the planned tokens arrived; `NOT_PRUNED`: all tokens of the video arrived;
        `NOTHING_TO_PRUNE`: the rate keeps all tokens of this video, so that it proves nothing (take a longer one);
        `UNEXPECTED`: another number arrived (is `other_tokens` right, and does the server sample these frames?).

    Raises:
        ValueError: If `q` is out of its range.
    """
    total = video.tokens_per_frame * video.num_frames
    planned = pruning.compute_retained_tokens_count(video.tokens_per_frame, video.num_frames, q)
    arrived = video.prompt_tokens - video.other_tokens
    if arrived not in (planned, total):
        return UNEXPECTED
    if planned == total:
        return NOTHING_TO_PRUNE
    return PRUNED if arrived == planned else NOT_PRUNED
