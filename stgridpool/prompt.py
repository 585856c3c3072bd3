"""Prompt: a question with its visuals, ready for the language model; Visual and Video: what stands in it.

Letters: L positions of a prompt, n of one visual, N visual tokens, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.finite import StageCheck
from stgridpool.plan import Plan, Shape


@dataclass(frozen=True)
class ClipTimes:
    """The times of the frames of a video.

    Attributes:
        times: Time of each frame, in seconds.
        duration: Length of the video, in seconds.
    """

    times: tuple[float, ...]
    duration: float


class Visual(Protocol):
    """A video or image in the form that the language model reads, in place of one placeholder."""

    @property
    def embeds(self) -> Tensor:
        """Visual and newline tokens in order, (n, D)."""

    @property
    def num_newlines(self) -> int:
        """Number of newline tokens among them."""

    @property
    def num_tokens(self) -> int:
        """Number of visual tokens among them."""

    @property
    def checks(self) -> tuple[StageCheck, ...]:
        """Whether the output of each stage is finite, as tensors on the device."""


class Video(Visual, Protocol):
    """A video in the form that the language model reads."""

    @property
    def plan(self) -> Plan:
        """The combined plan of the steps before the language model: the sources of every visual token."""

    @property
    def source_shape(self) -> Shape:
        """(T, H, W) of the patches before any compression."""

    @property
    def num_sources(self) -> int | None:
        """Number of the patches; None if they fill `source_shape`."""

    @property
    def shape(self) -> Shape:
        """(T', H', W') of the lattice of the visual tokens."""

    @property
    def cell(self) -> Tensor | None:
        """The cell of each visual token, (N,) int64; None if they fill the lattice."""

    def span(self, start: int) -> VisualSpan:
        """Return the positions of its tokens in a prompt where the video begins at position `start`."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt as ids and embeddings.

    Attributes:
        ids: (n,) token ids, with one placeholder for each visual.
        pieces: Embeddings (n_i, D), in order: text, visual, text, ..., text; a text may be empty.
        videos: The videos of the prompt, each with the position at which it begins.
        num_answer: Number of ids at the end that belong to an answer in the prompt, including the end of its turn.
        num_closing: Number of ids among these that close the turn.
        inputs: What the model takes besides embeddings, (..., L) each, such as positions; empty if it computes them.
        hand_over: Hands over what does not fit into the inputs, such as DeepStack levels, to the first forward in its
            block, which reads as many positions as it is told; None if there is nothing to hand over.
    """

    ids: Tensor
    pieces: tuple[Tensor, ...]
    videos: tuple[tuple[int, Video], ...] = ()
    num_answer: int = 0
    num_closing: int = 0
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    hand_over: Callable[[int], AbstractContextManager[None]] | None = None

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    @property
    def embeds(self) -> Tensor:
        """The whole prompt, (L, D)."""
        return torch.cat(self.pieces)

    def spans(self) -> list[VisualSpan]:
        """Return the positions of the videos."""
        return [video.span(start) for start, video in self.videos]

    @contextmanager
    def handing_over(self, count: int | None = None) -> Iterator[None]:
        """Hand over what does not fit into the inputs, for a forward of the first `count` positions, or of all."""
        with ExitStack() as stack:
            if self.hand_over is not None:
                stack.enter_context(self.hand_over(len(self) if count is None else count))
            yield

    @property
    def shared_ids(self) -> Tensor | None:
        """The ids before the video, which identify the prefix that questions about it share; None without one.

        A prompt has a prefix to share if it shows one video and nothing else, and text follows the video.
        """
        if len(self.videos) != 1 or len(self.pieces) != 3 or not len(self.pieces[2]):
            return None
        return self.ids[: len(self.pieces[0])]
