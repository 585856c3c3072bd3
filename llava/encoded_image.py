"""EncodedImage: an image in the form that the language model reads."""

from dataclasses import dataclass

import torch

from stgridpool.finite import StageCheck


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image in the form that the language model reads.

    Attributes:
        embeds: (n, D) visual tokens.
        checks: Whether they are finite.
    """

    embeds: torch.Tensor
    checks: tuple[StageCheck, ...]

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the image."""
        return len(self.embeds)

    @property
    def num_newlines(self) -> int:
        """Number of newline tokens: 0, since those of an image count as its visual tokens."""
        return 0
