"""Splicing of the tokens of images and videos into the text of a prompt.

A prompt is a row of ids with a placeholder for each visual. All functions here are pure: they split a prompt at its
placeholders, embed and join the pieces, and pad the rows of a batch to the same length.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.nn import functional as F

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX

logger = logging.getLogger(__name__)

Visual = TypeVar("Visual")
Embed = Callable[[torch.Tensor], torch.Tensor]  # ids (n,) to embeddings (n, D)


@dataclass(frozen=True, eq=False)
class SplicedBatch:
    """Prompts as embeddings, padded to one length.

    Attributes:
        embeds: (B, L, D), zero on padding.
        labels: (B, L); `IGNORE_INDEX` on visuals and padding.
        attention_mask: (B, L) bool, true on real positions.
        position_ids: (B, L) from 0 on real positions, 0 on padding.
    """

    embeds: torch.Tensor
    labels: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor


def join_pieces(
    ids: torch.Tensor, visuals: Sequence[torch.Tensor], embed: Embed, labels: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Join the text and the visuals of one prompt.

    Args:
        ids: (n,) token ids with `IMAGE_TOKEN_INDEX` as the placeholder of a visual.
        visuals: One (L_i, D) for each placeholder, in order.
        embed: Embeds text ids; it is called once, for the text of the whole prompt.
        labels: (n,) labels of `ids`; None if nothing is a label.

    Returns:
        (L, D) embeddings and (L,) labels.

    Raises:
        ValueError: If there are not as many visuals as placeholders.
    """
    is_text = ids != IMAGE_TOKEN_INDEX
    places = visual_starts(ids)
    if len(places) != len(visuals):
        raise ValueError(f"the prompt has {len(places)} image placeholders, got {len(visuals)} visuals")
    labels = torch.full_like(ids, IGNORE_INDEX) if labels is None else labels
    lengths = [end - start - 1 for start, end in zip([-1, *places], [*places, len(ids)], strict=True)]
    text_embeds = embed(ids[is_text]).split(lengths)
    text_labels = labels[is_text].split(lengths)
    pieces, piece_labels = [text_embeds[0]], [text_labels[0]]
    for visual, after, after_labels in zip(visuals, text_embeds[1:], text_labels[1:], strict=True):
        pieces += [visual.to(after), after]
        piece_labels += [labels.new_full((len(visual),), IGNORE_INDEX), after_labels]
    return torch.cat(pieces), torch.cat(piece_labels)


def visual_starts(ids: torch.Tensor) -> list[int]:
    """Find the positions of the placeholders in the ids (n,) of a prompt."""
    return (ids == IMAGE_TOKEN_INDEX).nonzero().flatten().tolist()


def deal_visuals(num_placeholders: Sequence[int], visuals: Sequence[Visual]) -> list[list[Visual]]:
    """Assign the visuals of a batch to its prompts, in order.

    A prompt without a placeholder consumes one visual without showing it, since callers pass a dummy image for such
    prompts. If there are too few visuals, the last one is shown again.

    Args:
        num_placeholders: Number of placeholders in each prompt.
        visuals: The visuals of the whole batch; at least one if there are placeholders.
    """
    dealt, used = [], 0
    for count in num_placeholders:
        dealt.append([visuals[min(index, len(visuals) - 1)] for index in range(used, used + count)])
        used += max(count, 1)
    if used != len(visuals) and visuals:
        logger.warning(
            "the prompts ask for %d images or videos and %d were given: %s",
            used,
            len(visuals),
            "the last ones are not shown" if used < len(visuals) else "the last one is shown again",
        )
    return dealt


def cut_to(row: tuple[torch.Tensor, torch.Tensor], max_length: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Truncate a prompt (embeddings, labels) to `max_length` positions, with a warning if it is longer.

    Like LLaVA-NeXT, we cut off the end, where our prompts have the question.
    """
    length = len(row[0])
    if max_length is None or length <= max_length:
        return row
    logger.warning(
        "%d of %d tokens were cut from the end of the prompt, whose longest length is tokenizer_model_max_length = %d. "
        "The question is at the end and may be lost: use fewer frames or a stronger compressor.",
        length - max_length,
        length,
        max_length,
    )
    return row[0][:max_length], row[1][:max_length]


def pad_rows(rows: Sequence[tuple[torch.Tensor, torch.Tensor]], side: str) -> SplicedBatch:
    """Pad prompts (embeddings, labels) to the longest, and stack them to a batch.

    Args:
        rows: (L_i, D) embeddings and (L_i,) labels of each prompt.
        side: Side of the padding, `left` or `right`.

    Raises:
        ValueError: If `side` is neither.
    """
    if side not in ("left", "right"):
        raise ValueError(f"tokenizer_padding_side must be 'left' or 'right', got {side!r}")
    longest = max(len(embeds) for embeds, _ in rows)

    def padded(values: torch.Tensor, fill: int) -> torch.Tensor:
        missing = longest - len(values)
        amounts = (missing, 0) if side == "left" else (0, missing)
        return F.pad(values, (0, 0) * (values.ndim - 1) + amounts, value=fill)

    device = rows[0][0].device
    positions = [torch.arange(len(embeds), device=device) for embeds, _ in rows]
    mask = torch.stack([padded(torch.ones_like(row), 0) for row in positions]).bool()
    return SplicedBatch(
        embeds=torch.stack([padded(embeds, 0) for embeds, _ in rows]),
        labels=torch.stack([padded(labels, IGNORE_INDEX) for _, labels in rows]),
        attention_mask=mask,
        position_ids=torch.stack([padded(row, 0) for row in positions]),
    )


def splice_batch(
    input_ids: torch.Tensor,
    visuals: Sequence[torch.Tensor],
    embed: Embed,
    *,
    attention_mask: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    max_length: int | None = None,
    padding_side: str = "right",
) -> SplicedBatch:
    """Embed a batch of prompts with their visuals.

    Args:
        input_ids: (B, n) ids with placeholders.
        visuals: (L_i, D) for each image or video of the batch, in order; see `deal_visuals`.
        embed: Embeds text ids.
        attention_mask: (B, n); positions where it is 0 are dropped.
        labels: (B, n).
        max_length: Longest row, in tokens, or None.
        padding_side: Side of the padding, `left` or `right`.

    Raises:
        ValueError: If `padding_side` is neither.
    """
    keep = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    ids = [row[kept] for row, kept in zip(input_ids, keep, strict=True)]
    row_labels = [None] * len(ids) if labels is None else [row[kept] for row, kept in zip(labels, keep, strict=True)]
    dealt = deal_visuals([int((row == IMAGE_TOKEN_INDEX).sum()) for row in ids], visuals)
    rows = [
        cut_to(join_pieces(row, shown, embed, label), max_length)
        for row, shown, label in zip(ids, dealt, row_labels, strict=True)
    ]
    return pad_rows(rows, padding_side)
