"""The prefix that all questions about one video share, and the count of the visual tokens in a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lmms_eval_stgridpool.videos.encoding import Media
from stgridpool.compressor import planned_counts
from stgridpool.decoder.session import POSITIONS
from stgridpool.decoder.steps import DecoderSteps
from stgridpool.model import Prompt, Video, VideoModel
from stgridpool.plan import Plan
from stgridpool.retention import LayerLengths, VisualCounts
from stgridpool.session import VideoSession, open_session


@dataclass(frozen=True, eq=False)
class Opened:
    """A prompt whose prefix is in memory.

    Attributes:
        session: The prefix.
        suffix: Embeddings (n, D) of the rest of the prompt.
        positions: (..., L), those of the whole prompt; None if the model counts them.
        counts: Visual tokens of the prefix.
    """

    session: VideoSession
    suffix: torch.Tensor
    positions: torch.Tensor | None
    counts: VisualCounts


class SharedPrefix:
    """Keeps one `VideoSession` for as long as the video and the text before it stay the same.

    Prompts without a video, with several videos or with images share nothing.

    Args:
        model: The model.
        is_on: Whether to share prefixes; must be False if the compressor looks at the question.
    """

    def __init__(self, model: VideoModel, is_on: bool) -> None:
        self._model = model
        self._is_on = is_on
        self._media: Media | None = None
        self._ids = torch.empty(0)
        self._session: VideoSession | None = None
        self._counts: VisualCounts | None = None

    def ids(self, prompt: Prompt) -> torch.Tensor | None:
        """Return the ids (l,) before the video of a prompt, which identify its prefix; None if it shares nothing."""
        return prompt.shared_ids if self._is_on else None

    def open(self, prompt: Prompt, media: Media) -> Opened | None:
        """Open the session for a prompt and forget the session of any other prefix.

        Args:
            prompt: The prompt.
            media: The visuals in the prompt; the same object for all questions about a video.

        Returns:
            The session and the rest of the prompt; None if the prompt shares nothing.

        Raises:
            RuntimeError: If a layer read a different number of visual tokens than the compressors planned.
        """
        ids = self.ids(prompt)
        if ids is None:
            return None
        with torch.inference_mode():
            is_in_memory = media is self._media and torch.equal(ids, self._ids)
            session, counts = (self._session, self._counts) if is_in_memory else (None, None)
            if session is None or counts is None:
                self.forget()
                session, counts = self._prefill(prompt)
                self._session, self._counts, self._media, self._ids = session, counts, media, ids
            suffix = prompt.pieces[2].to(session.prefix)
            return Opened(session, suffix, prompt.inputs.get(POSITIONS), counts)

    def _prefill(self, prompt: Prompt) -> tuple[VideoSession, VisualCounts]:
        with LayerLengths(self._model.decoder.layers).of_first_forward() as entering:
            session = open_session(self._model, prompt)
        videos = [video for _, video in prompt.videos]
        num_text = len(session) - sum(video.num_tokens + video.num_newlines for video in videos)
        return session, count_tokens(self._model, videos, num_text, entering, session.layer_lengths())

    def forget(self) -> None:
        """Free the keys and values of the last video."""
        self._session = self._media = None


def count_whole_prompt(model: VideoModel, prompt: Prompt, entering: Sequence[int]) -> VisualCounts | None:
    """Count the visual tokens of a prompt that shares nothing; each layer caches what enters it.

    Args:
        model: The model.
        prompt: The prompt that the model has just read.
        entering: Number of positions that entered each decoder layer.

    Returns:
        The counts, or None if the prompt shows no video.

    Raises:
        RuntimeError: If a layer read a different number of visual tokens than the compressors planned.
    """
    if not prompt.videos:
        return None
    videos = [video for _, video in prompt.videos]
    num_text = len(prompt) - sum(video.num_tokens + video.num_newlines for video in videos)
    return count_tokens(model, videos, num_text, entering, entering)


def count_tokens(
    model: VideoModel, videos: Sequence[Video], num_text: int, entering: Sequence[int], cached: Sequence[int]
) -> VisualCounts:
    """Count the visual tokens of the prompt that the model has just read, and compare the count with the plan.

    Args:
        model: The model.
        videos: The prompt's videos.
        num_text: Number of other tokens among the counted positions.
        entering: Number of positions that entered each decoder layer.
        cached: Number of the prompt's positions in each layer's cache.

    Raises:
        RuntimeError: If a layer read a different number of visual tokens than the compressors planned.
    """
    own = [model.own_counts(video) for video in videos]
    planned = [sum(video.num_tokens for video in videos)] * len(entering)
    newlines = [sum(video.num_newlines for video in videos)] * len(entering)
    inside = model.inside
    if inside is not None and inside.last is not None:
        plans, num_newlines = inside.last.plans[0], inside.last.num_newlines[0]  # all beams have the same
        for layer, of_videos, breaks in zip(inside.layers, plans, num_newlines, strict=True):
            planned[layer:] = [sum(map(len, of_videos))] * (len(entering) - layer)
            newlines[layer:] = [breaks] * (len(entering) - layer)
        _check_planned(inside, plans, videos)
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


def _check_planned(inside: DecoderSteps, plans: Sequence[Sequence[Plan]], videos: Sequence[Video]) -> None:
    """Compare the tokens that each step kept of each video, ``plans[step][video]``, with what its settings imply."""
    for number, video in enumerate(videos):
        planned = planned_counts(inside.steps, video.shape, None if video.cell is None else video.num_tokens)
        for step, of_videos, expected in zip(inside.steps, plans, planned, strict=True):
            kept = len(of_videos[number])
            if expected is not None and kept != expected:
                raise RuntimeError(f"{step.compressor!r} kept {kept} tokens of a video, its settings imply {expected}")
