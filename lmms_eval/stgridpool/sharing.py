"""The prefix that all questions about one video share, kept from one question to the next."""

from typing import Any

import torch

from llava.constants import IMAGE_TOKEN_INDEX
from lmms_eval_stgridpool.counting import count_tokens
from lmms_eval_stgridpool.media import Media
from stgridpool.retention import LayerLengths, VisualCounts
from stgridpool.session import VideoSession


class SharedPrefix:
    """Opens a `VideoSession` per video, and goes on with it while the video and the text before it stay the same.

    Prompts without a video, with several videos or with images share nothing.

    Args:
        model: The model of ``llava``.
        is_on: Whether to share at all; a compressor that looks at the question must not.

    Attributes:
        counts: Visual tokens of the prefix that was opened last.
    """

    def __init__(self, model: Any, is_on: bool) -> None:
        self._model = model
        self._is_on = is_on
        self._media: Media | None = None
        self._prefix_ids = torch.empty(0)
        self._session: VideoSession | None = None
        self.counts: VisualCounts | None = None

    def open(self, ids: torch.Tensor, media: Media) -> tuple[VideoSession, torch.Tensor] | None:
        """The session for a prompt, and the embeddings (n, D) of what follows its prefix; None if it shares nothing.

        Args:
            ids: (L,) token ids, a placeholder where the video goes.
            media: What the question shows.
        """
        places = (ids == IMAGE_TOKEN_INDEX).nonzero().flatten().tolist()
        if not self._is_on or len(media.clips) != 1 or len(places) != 1 or places[0] + 1 == len(ids):
            return None
        prefix_ids, suffix_ids = ids[: places[0]], ids[places[0] + 1 :]
        with torch.inference_mode():
            if self._session is None or media is not self._media or not torch.equal(prefix_ids, self._prefix_ids):
                self.forget()
                video = media.inputs[0].embeds
                prefix = torch.cat([self._embed(prefix_ids).to(video), video])
                stage = self._model.llm_stage
                spans = [] if stage is None else [media.inputs[0].span(len(prefix_ids))]
                with LayerLengths(self._model).of_first_forward() as entering:
                    self._session = VideoSession(self._model, prefix, stage, spans)
                cached = self._session.layer_lengths()
                self.counts = count_tokens(self._model, media, len(prefix_ids), entering, cached)
                self._media, self._prefix_ids = media, prefix_ids
            return self._session, self._embed(suffix_ids).to(self._session.prefix)

    def forget(self) -> None:
        """Free the last video's keys and values."""
        self._session = self._media = None

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        embeddings = self._model.get_input_embeddings()
        return embeddings(ids.to(embeddings.weight.device, non_blocking=True))
