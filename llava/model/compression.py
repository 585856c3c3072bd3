"""What compresses a model's videos: in front of the language model, inside it, or both."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from llava.layout import EncodedVideo
from llava.model.own_pooling import pooling_compressor
from llava.model.splice import deal_visuals, visual_starts
from stgridpool import Compressor, build_compressors
from stgridpool.llm_stage import LLMStage, VisualSpan

Visual = EncodedVideo | torch.Tensor


class Compression:
    """The compressors of a model; mixed into `VisualInputs`.

    Attributes:
        llm_stage: The compressor inside the language model, or None.
    """

    config: Any
    llm_stage: LLMStage | None = None
    _compressor: Compressor | None = None

    @property
    def compressor(self) -> Compressor:
        """What reduces the tokens of videos in front of the language model; the checkpoint's own pooling unless set.

        Set it to a `Compressor`, to a name, to a pair of which one acts inside the language model, or to None for the
        checkpoint's own. A method that acts inside the language model becomes `llm_stage`.
        """
        return self._compressor or pooling_compressor(self.config.mm_spatial_pool_mode)

    @compressor.setter
    def compressor(self, value: Compressor | str | Sequence[Compressor] | None) -> None:
        if isinstance(value, str):
            value = build_compressors(value)
        compressors = list(value) if isinstance(value, Sequence) else [] if value is None else [value]
        for compressor in compressors:
            if not isinstance(compressor, Compressor):
                raise TypeError(f"compressor must be a Compressor, a name or None, got {type(compressor).__name__}")
            if compressor.needs:
                raise ValueError(f"{compressor!r} needs {sorted(compressor.needs)}; this model offers tokens alone")
        before = [one for one in compressors if one.stage == "before_llm"]
        inside = [one for one in compressors if one.stage != "before_llm"]
        if len(before) > 1 or len(inside) > 1:
            raise ValueError(f"one compressor may act before the language model and one inside it, got {compressors}")
        self.llm_stage = LLMStage.of(self, inside[0]) if inside else None
        self._compressor = before[0] if before else None

    @property
    def compression(self) -> str:
        """What compresses the videos, for the record of a run."""
        inside = "" if self.llm_stage is None else f" + {self.llm_stage.compressor!r}"
        return f"{self.compressor!r}{inside}"

    def compressing(self, ids: Sequence[torch.Tensor], visuals: Sequence[Visual]) -> AbstractContextManager[Any]:
        """A block in which the videos of these prompts are compressed inside the language model, if there they are.

        Args:
            ids: (n_i,) ids of each prompt, without padding, with a placeholder for each visual.
            visuals: The images and videos of all prompts, in order.
        """
        if self.llm_stage is None:
            return nullcontext()
        starts = [visual_starts(row) for row in ids]
        dealt = deal_visuals([len(row) for row in starts], visuals)
        return self.llm_stage.prompts([video_spans(row, shown) for row, shown in zip(starts, dealt, strict=True)])


def video_spans(starts: Sequence[int], visuals: Sequence[Visual]) -> list[VisualSpan]:
    """Where the videos among a prompt's visuals stand once all visuals are in their places.

    Args:
        starts: Where the placeholder of each visual stands among the prompt's ids.
        visuals: The visuals, in order.

    Raises:
        ValueError: If a video's tokens fill no grid.
    """
    spans, shift = [], 0
    for start, visual in zip(starts, visuals, strict=True):
        if isinstance(visual, EncodedVideo):
            spans.append(visual.span(start + shift))
            shift += len(visual.embeds) - 1
        else:
            shift += len(visual) - 1
    return spans
