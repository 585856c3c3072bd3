"""Evidence that depends on the question: its text as vectors, and its attention inside the language model.

Letters: N tokens that the method sees, n tokens of the question, D width of the language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stgridpool.need import MOST_LAYERS, Need
from stgridpool.options import choice, whole_number


@dataclass(frozen=True)
class Question(Need):
    """The question's text as vectors.

    Attributes:
        space: "decoder" for the language model's embeddings (n, D) of its n tokens, "tower" for vectors (M, C) float32
            from the text half of the vision tower: one for each piece of the text that it can read at a time, not
            normalised.

    Raises:
        ValueError: If `space` is neither of these.
    """

    query_aware: ClassVar[bool] = True
    per_token: ClassVar[bool] = False

    space: str = "decoder"

    def __post_init__(self) -> None:
        choice("space", self.space, ("decoder", "tower"))


ROWS = ("last", "question", "relevant")
"""Rows of a prompt that attention may be asked from, see `QueryAttention`."""


@dataclass(frozen=True)
class QueryRows(Need):
    """Something of rows of text and a layer of the language model.

    Attributes:
        layer: The decoder layer, from 0.
        rows: "last" for the last token of the prompt, "question" for all tokens after the last video, "relevant" for
            those among these that match the videos better than average (the raters of SparseVLM): at the input of the
            language model, the softmax of its products with the question's tokens shares out each visual token among
            them, and a token is relevant if its mean share is above the mean over the question.

    Raises:
        ValueError: If an attribute is out of its range.
    """

    query_aware: ClassVar[bool] = True

    layer: int = 0
    rows: str = "last"

    def __post_init__(self) -> None:
        whole_number("layer", self.layer, 0, MOST_LAYERS)
        choice("rows", self.rows, ROWS)


@dataclass(frozen=True)
class QueryAttention(QueryRows):
    """Attention from rows of text to each visual token in a layer of the language model; float32.

    Attributes:
        reduce: "mean" or "max" over heads and rows: (N,). "none": (N, heads, rows), as much memory.
    """

    reduce: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("reduce", self.reduce, ("mean", "max", "none"))


@dataclass(frozen=True)
class RotaryBias(QueryRows):
    """What rotary embedding alone adds to attention logits between rows of text and each visual token; (N, rows).

    It is the scaled product of a query and a key of ones at their current positions. Dividing attention by it takes the
    preference for near tokens away; it falls through 0 where they are far apart.

    Source: SparseVLM+, the second version of https://github.com/Gumpest/SparseVLMs.
    """
