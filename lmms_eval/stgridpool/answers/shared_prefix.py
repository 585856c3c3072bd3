"""The prefix that all questions about one video share, kept from one question to the next, and its visual tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llava.constants import IMAGE_TOKEN_INDEX
from lmms_eval_stgridpool.videos.encoding import Media
from stgridpool.decoder.session import VideoSession
from stgridpool.retention import LayerLengths, VisualCounts


@dataclass(frozen=True, eq=False)
class Opened:
    """A prefix that is in memory, and what a prompt adds to it.

    Attributes:
        session: The prefix.
        suffix: Embeddings (n, D) of what follows it.
        counts: Visual tokens of the prefix.
    """

    session: VideoSession
    suffix: torch.Tensor
    counts: VisualCounts | None


class SharedPrefix:
    """Opens a `VideoSession` per video, and goes on with it while the video and the text before it stay the same.

    Prompts without a video, with several videos or with images share nothing.

    Args:
        model: The model of ``llava``.
        is_on: Whether to share at all; a compressor that looks at the question must not.
    """

    def __init__(self, model: Any, is_on: bool) -> None:
        self._model = model
        self._is_on = is_on
        self._media: Media | None = None
        self._prefix_ids = torch.empty(0)
        self._session: VideoSession | None = None
        self._counts: VisualCounts | None = None

    def prefix(self, ids: torch.Tensor, media: Media) -> torch.Tensor | None:
        """Return the ids (l,) before the video of a prompt, which decide its prefix; None if it shares nothing.

        Args:
            ids: (L,) token ids, a placeholder where the video goes.
            media: What the question shows.
        """
        places = (ids == IMAGE_TOKEN_INDEX).nonzero().flatten().tolist()
        if not self._is_on or len(media.clips) != 1 or len(places) != 1 or places[0] + 1 == len(ids):
            return None
        return ids[: places[0]]

    def open(self, ids: torch.Tensor, media: Media) -> Opened | None:
        """Open the session for a prompt; the one of another prefix is forgotten. None if the prompt shares nothing.

        Args:
            ids: (L,) token ids, a placeholder where the video goes.
            media: What the question shows.
        """
        prefix_ids = self.prefix(ids, media)
        if prefix_ids is None:
            return None
        with torch.inference_mode():
            is_in_memory = media is self._media and torch.equal(prefix_ids, self._prefix_ids)
            session = self._session if is_in_memory else None
            if session is None:
                self.forget()
                session = self._prefill(prefix_ids, media)
            return Opened(session, self._embed(ids[len(prefix_ids) + 1 :]).to(session.prefix), self._counts)

    def _prefill(self, prefix_ids: torch.Tensor, media: Media) -> VideoSession:
        video = media.inputs[0].embeds
        prefix = torch.cat([self._embed(prefix_ids).to(video), video])
        stage = self._model.llm_stage
        spans = [] if stage is None else [media.inputs[0].span(len(prefix_ids))]
        with LayerLengths(self._model).of_first_forward() as entering:
            session = VideoSession(self._model, prefix, stage, spans)
        self._counts = count_tokens(self._model, media, len(prefix_ids), entering, session.layer_lengths())
        self._session, self._media, self._prefix_ids = session, media, prefix_ids
        return session

    def forget(self) -> None:
        """Free the last video's keys and values."""
        self._session = self._media = None

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        embeddings = self._model.get_input_embeddings()
        return embeddings(ids.to(embeddings.weight.device, non_blocking=True))


def count_tokens(
    model: Any, media: Media, num_text: int, entering: Sequence[int], cached: Sequence[int]
) -> VisualCounts:
    """Counts of the prompt that the model has just read.

    Args:
        model: The model of ``llava``.
        media: The prompt's videos.
        num_text: Other tokens among the positions counted.
        entering: Positions that entered each decoder layer.
        cached: Positions of the prompt that each layer's cache holds.

    Raises:
        RuntimeError: If a layer got another number of visual tokens than the compressors planned.
    """
    own = [model.own_counts(len(clip.times)) for clip in media.clips]
    planned, newlines = [media.visual_tokens] * len(entering), [media.newline_tokens] * len(entering)
    stage = model.llm_stage
    if stage is not None:
        shortened = len(entering) - stage.layer
        planned[stage.layer :] = [sum(map(len, stage.last.plans[0]))] * shortened
        newlines[stage.layer :] = [stage.last.num_newlines[0]] * shortened
        _check_planned(stage, media)
    for layer, (count, tokens, breaks) in enumerate(zip(entering, planned, newlines, strict=True)):
        entered = count - num_text - breaks
        if entered != tokens:
            raise RuntimeError(f"{entered} visual tokens entered layer {layer}, {model.compressor!r} planned {tokens}")
    return VisualCounts(
        full=sum(tokens for tokens, _ in own),
        full_newlines=sum(breaks for _, breaks in own),
        layers=tuple(planned),
        layer_newlines=tuple(newlines),
        kv_read=tuple(length - num_text for length in cached),
    )


def _check_planned(stage: Any, media: Media) -> None:
    for video, plan in zip(media.inputs, stage.last.plans[0], strict=True):
        expected = stage.compressor.planned_count(video.shape, None if video.cell is None else video.num_tokens)
        if expected is not None and len(plan) != expected:
            raise RuntimeError(f"{stage.compressor!r} left {len(plan)} tokens of a video, its settings give {expected}")
