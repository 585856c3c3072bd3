"""Need: the name of one tensor that a method asks a model for, and the properties that all such names have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

MOST_LAYERS = 1000
"""Largest number of layers that an option may count."""


@dataclass(frozen=True)
class Need:
    """One tensor to ask a model for. Its ``repr`` is part of the key under which features are cached.

    Attributes:
        query_aware: Whether the tensor depends on the question; class attribute.
        per_token: Whether the tensor has a row for each token; class attribute.
        frame_axes: Number of its leading axes that are the frames; class attribute.
        from_file: Whether the tensor stands in a file of the user's, so that no model is asked; class attribute.
        made_by_steps: Whether steps of the method in the vision tower leave it behind; class attribute.
    """

    query_aware: ClassVar[bool] = False
    per_token: ClassVar[bool] = True
    frame_axes: ClassVar[int] = 0
    from_file: ClassVar[bool] = False
    made_by_steps: ClassVar[bool] = False

    @property
    def from_tower(self) -> bool:
        """Whether the vision tower computes it when it encodes the video."""
        return not self.query_aware and not self.from_file

    def digest(self) -> str | None:
        """Identify the content of the user's file that the tensor stands in; None if it stands in none."""
        return None


Evidence = Mapping[Need, Tensor]
"""The tensors that a compressor gets, one for each of its needs, on the device of the tokens."""
