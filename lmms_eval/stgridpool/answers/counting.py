"""The visual tokens of a question, counted in the running model and compared with what the compressors planned."""

from collections.abc import Sequence
from typing import Any

from lmms_eval_stgridpool.videos.encoding import Media
from stgridpool.retention import VisualCounts


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
        expected = stage.compressor.planned_count(video.plan.shape)
        if expected is not None and len(plan) != expected:
            raise RuntimeError(f"{stage.compressor!r} left {len(plan)} tokens of a video, its settings give {expected}")
