"""TokenLayout: tokens before and after every frame, and after each pooling of a video."""

from dataclasses import dataclass

import torch

from stgridpool import VideoTokens


@dataclass(frozen=True, eq=False)
class TokenLayout:
    """Embeddings that stand around the tokens of frames; any of them may be empty.

    Attributes:
        start: (a, D), before every frame.
        end: (b, D), after every frame.
        sep: (c, D), after the frames of each pooling.
    """

    start: torch.Tensor
    end: torch.Tensor
    sep: torch.Tensor

    @property
    def is_plain(self) -> bool:
        """Whether there is one token after every frame and nothing else, or nothing at all."""
        return not len(self.start) and not len(self.sep) and len(self.end) <= 1

    def around(self, tokens: torch.Tensor) -> torch.Tensor:
        """Put start and end around the tokens (n, D) of one frame."""
        return torch.cat([self.start.to(tokens), tokens, self.end.to(tokens)])

    def lay_out(self, tokens: VideoTokens) -> tuple[torch.Tensor, torch.Tensor]:
        """Put start and end around every frame, and sep after each pooling.

        A frame begins where the place of a token is in another frame than that of the token before it, or not after
        it; a pooling where the frame is not a later one.

        Args:
            tokens: Frame by frame; the results of several poolings may follow each other.

        Returns:
            All embeddings (L, D), and the positions (N,) int64 of the tokens among them.
        """
        cells, frames = tokens.cells(), tokens.frames()
        begins = torch.ones_like(cells, dtype=torch.bool)
        begins[1:] = (frames[1:] != frames[:-1]) | (cells[1:] <= cells[:-1])
        first = begins.nonzero().flatten()  # of each frame
        last = torch.cat([first[1:], first.new_tensor([len(cells)])]) - 1
        is_new = torch.ones_like(first)
        is_new[1:] = frames[first[1:]] <= frames[first[:-1]]
        pooling = is_new.cumsum(0) - 1
        closes = torch.cat([is_new[1:], is_new[:1]]).bool()  # the last frame of each pooling
        frame = begins.cumsum(0) - 1
        before = len(self.start) * (frame + 1) + len(self.end) * frame + len(self.sep) * pooling[frame]
        position = torch.arange(len(cells), device=cells.device) + before
        length = int(position[-1]) + 1 + len(self.end) + len(self.sep)
        embeds = tokens.features.new_empty(length, tokens.features.shape[1])
        embeds[position] = tokens.features
        behind = position[last]
        for values, places in (
            (self.start, position[first] - len(self.start)),
            (self.end, behind + 1),
            (self.sep, behind[closes] + 1 + len(self.end)),
        ):
            for offset, value in enumerate(values):
                embeds[places + offset] = value.to(embeds)
        return embeds, position

    def count(self, frames: tuple[int, ...]) -> int:
        """Count the embeddings around a video's tokens, given its numbers of frames after each pooling."""
        return (len(self.start) + len(self.end)) * sum(frames) + len(self.sep) * len(frames)
