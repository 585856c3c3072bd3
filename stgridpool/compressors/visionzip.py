"""VisionZip: keeping the tokens with the most attention in the vision tower, and merging the rest into a few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from stgridpool.algorithms.equal_rows import first_equals
from stgridpool.budget import exact_part
from stgridpool.evidence import IMPORTANCE, Evidence, Need, TowerKeys
from stgridpool.options import choice, number
from stgridpool.plan import Plan, to_device
from stgridpool.scorer import FrameBudgeted, highest_per_group
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class VisionZip(FrameBudgeted):
    """Keep the dominant tokens of each frame, and merge the others into a few contextual ones by the cosine of keys.

    Frames share the budget as `frame_budget` says. A frame with a share of S tokens keeps ``int(S * dominant)``
    dominant tokens, those that receive the most attention, and ``c`` contextual ones, which make up S. Of its n other
    tokens in raster order, every ``max(1, n // c)``-th becomes contextual. Each remaining token is merged into the
    contextual token whose key has the highest cosine with its own; the first of equals wins. A frame without contextual
    tokens drops the rest.

    Presets define a contextual token. In the released code it is the sum of the token itself and the mean of those
    merged into it, about twice as long as other tokens. All published numbers were made that way, so ``released`` is
    the default; ``corrected`` takes the mean of all of them.

    Other differences from the source: the budget is exact for the video, whereas the source rounds a ratio down in each
    frame; the class token is never kept; tokens stay in raster order. A published port to LLaVA-Video mixes up tokens
    and positions where frames end in newlines; we do not reproduce that.

    Source: VisionZip (CVPR 2025), arXiv 2412.04467.

    Attributes:
        preset: "released" or "corrected", see above.
        importance: The attention that ranks tokens: "received" from all patches, as in ports to SigLIP, of the "class"
            token, as in the released code for CLIP, or of SigLIP's "pool_head".
        dominant: Fraction of a frame's share that is dominant, 0 to 1.

    Raises:
        ValueError: If an option is out of its range.
    """

    PRESETS: ClassVar[tuple[str, ...]] = ("released", "corrected")

    preset: str = "released"
    importance: str = "received"
    dominant: float = 54 / 64

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("preset", self.preset, self.PRESETS)
        choice("importance", self.importance, IMPORTANCE)
        object.__setattr__(self, "dominant", number("dominant", self.dominant, 0, 1))

    @property
    def needs(self) -> frozenset[Need]:
        """The attention that `importance` names, and the keys of the tower."""
        return frozenset({IMPORTANCE[self.importance], TowerKeys()})

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Choose dominant and contextual tokens, and merge each other token into a contextual one of its frame."""
        frames, sizes = tokens.frames(), tokens.frame_sizes()
        shares = self.frame_shares(tokens)
        quota = torch.tensor([exact_part(self.dominant, share) for share in shares.tolist()])
        contextual, others = shares - quota, sizes - quota
        dominant = highest_per_group(evidence[IMPORTANCE[self.importance]], frames, quota)
        if not contextual.any():
            return Plan.keep(dominant, len(tokens))
        is_dominant = torch.zeros_like(frames).index_fill(0, dominant, 1)
        rest = (is_dominant * len(sizes) + frames).argsort(stable=True)[: int(others.sum())]  # frame after frame
        targets, goes_to = send_to_targets(evidence[TowerKeys()][rest], others, contextual)
        anchor = torch.cat([dominant, rest[targets]]).sort().values
        group = torch.searchsorted(anchor, torch.arange(len(tokens), device=anchor.device))
        group[rest] = torch.searchsorted(anchor, rest[goes_to]).where(goes_to >= 0, -1)
        drops = bool(((contextual == 0) & (others > 0)).any())
        return Plan.merge(group, anchor, self._weights(group, anchor), drops)

    def _weights(self, group: Tensor, anchor: Tensor) -> Tensor | None:
        """Return the factor (N,) of each token in the sum over its group; None for the mean."""
        if self.preset == "corrected":
            return None
        sizes = torch.zeros(len(anchor) + 1, device=group.device)
        sizes = sizes.scatter_add(0, group + 1, torch.ones(len(group), device=group.device))
        return (1 / (sizes[group + 1] - 1).clamp_min(1)).index_fill(0, anchor, 1)


def send_to_targets(keys: Tensor, sizes: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Make every n-th token of a frame a target, and send each other token to the target with the most similar key.

    Args:
        keys: (n, d), frame after frame.
        sizes: (T,) int64 on the CPU, the number of keys in each frame.
        counts: (T,) int64 on the CPU, the number of targets in each frame, at most its size; not all of them 0.

    Returns:
        The targets (C,) int64, and the target of each of the n tokens, (n,) int64, -1 in a frame without targets.
    """
    step = (sizes // counts.clamp_min(1)).clamp_min(1)[:, None]
    ranks, order = torch.arange(int(sizes.max())), torch.arange(int(counts.max()))
    is_target = (ranks % step == 0) & (ranks // step < counts[:, None])  # (T, R)
    is_free = order >= counts[:, None]  # (T, C), places of targets that a frame does not have
    places = (order * step).masked_fill(is_free, 0)
    starts = (sizes.cumsum(0) - sizes)[:, None]
    targets = (places + starts)[~is_free]
    slots = (ranks < sizes[:, None]).flatten().nonzero().flatten()
    itself = ranks.where(is_target, -1)
    has_none = (counts == 0)[:, None]
    decided = (targets, slots, places, is_free, itself, step, starts, has_none)
    targets, slots, places, is_free, itself, step, starts, has_none = to_device(decided, keys.device)

    unit = pad_sequence(F.normalize(keys.float(), dim=-1).split(sizes.tolist()), batch_first=True)  # (T, R, d)
    chosen = unit.gather(1, places[:, :, None].expand(-1, -1, unit.shape[2]))  # (T, C, d)
    cosine = (unit @ chosen.mT).masked_fill(is_free[:, None], -torch.inf)  # (T, R, C)
    nearest = first_equals(chosen).gather(1, cosine.argmax(2))
    goes_to = itself.where(itself >= 0, nearest * step) + starts
    return targets, goes_to.masked_fill(has_none, -1).flatten()[slots]
