"""Where the tokens of one video come from, with one compressor or several, for pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llava.image_processing import VisionImageProcessor
from lmms_eval_stgridpool.answers.prompt_length import check_length
from lmms_eval_stgridpool.videos.encoding import EncodedMedia, MediaEncoder
from stgridpool import Compressor
from stgridpool.adapters.native_model import NativeVideoModel
from stgridpool.adapters.native_video import from_tensors
from stgridpool.compressor import Step, early_steps
from stgridpool.equal_budget import Reference
from stgridpool.finite import LANGUAGE_MODEL, StageCheck, first_failure, flags_of
from stgridpool.frame_evidence import FramesRead
from stgridpool.model import last_logits
from stgridpool.show.trace import Trace
from stgridpool.show.watched import Watched, traced
from stgridpool.timing import StageTimer


@dataclass(frozen=True, eq=False)
class TracedVideo:
    """A video and its tokens.

    Attributes:
        frames: uint8 RGB (T, h, w, 3), a frame for each frame of the patches, cut to what the vision tower reads.
        times: Time of each, in seconds.
        traces: One for each compressor.
    """

    frames: NDArray[np.uint8]
    times: tuple[float, ...]
    traces: tuple[Trace, ...]


def trace(encoder: MediaEncoder, video: Path, question: str, compressors: Mapping[str, Compressor]) -> TracedVideo:
    """Trace the tokens of a video; it is encoded once, unless a compressor changes that.

    The language model runs only if a compressor acts inside it, and only the prefill.

    Args:
        encoder: Encodes and compresses videos.
        video: The file, or a folder of pictures.
        question: For compressors that look at it, and for the prompt.
        compressors: By name, at least one.

    Raises:
        VideoReadError: If the video cannot be read.
        ValueError: If the model does not offer what a compressor needs, or a prompt is too long for it.
        NonFiniteError: If features, or the logits of a prefill, are NaN or infinite.
    """
    watched = {name: Watched(method) for name, method in compressors.items()}
    for method in watched.values():
        encoder.model.compressor = method  # refuses what the model does not offer, before anything is encoded
    encoded, traces = dict[tuple[Step, ...], EncodedMedia](), []
    for name, method in watched.items():
        encoder.model.compressor = method
        steps = early_steps(method)
        if steps not in encoded:
            encoder.loader.ask([one for one in watched.values() if early_steps(one) == steps], steps)
            encoder.loader.expect([video])
            with torch.inference_mode():
                encoded[steps] = encoder.encode([str(video)], StageTimer(encoder.device))
        with torch.inference_mode():
            traces.append(_trace(encoder, name, method, encoded[steps], question))
    clip = encoder.loader.whole_frames(video)
    num_frames = max(one.shape[0] for one in traces)  # a native model may make one of several
    shown = range(0, len(clip.frames), -(-len(clip.frames) // num_frames))
    times = tuple(clip.times[index] for index in shown)
    return TracedVideo(_read_by_tower(clip.frames[list(shown)], encoder.model.recipe), times, tuple(traces))


def reference_of(encoder: MediaEncoder, video: Path) -> Reference:
    """Return what retention is measured against; the frames of a native model are as large as the video decides.

    Raises:
        VideoReadError: If the video cannot be read.
    """
    model = encoder.model
    if not isinstance(model, NativeVideoModel):
        return model.reference()
    encoder.loader.ask([])
    encoder.loader.expect([video])
    with torch.inference_mode():
        features: Any = encoder.encode([str(video)], StageTimer(encoder.device)).videos[0].features
    visual = from_tensors(features)
    rows, columns = (visual.tokens if visual.patches is None else visual.patches).shape[1:3]
    return Reference(model.own_pooling(), (rows, columns), len(model.decoder.layers))


def _trace(encoder: MediaEncoder, name: str, method: Watched, encoded: EncodedMedia, question: str) -> Trace:
    model = encoder.model
    media = encoder.compress(encoded, question, StageTimer(encoder.device))
    checks = [*media.checks]
    if model.inside is not None:
        prompt = model.prompt(question, media.visuals, media.clips)
        check_length(model, prompt)
        checks.append(StageCheck.of(LANGUAGE_MODEL, last_logits(model, prompt, 1)))
    error = first_failure(checks, flags_of(checks, encoder.device))
    if error is not None:
        raise error
    features = encoded.videos[0]
    evidence = {**features.evidence, FramesRead(): torch.tensor([len(features.times)])}
    num_encoded = len(features.features) if isinstance(features.features, torch.Tensor) else 0
    video: Any = media.visuals[0]  # a path was encoded, so that it is a `stgridpool.model.Video`
    return traced(name, method, model, video, evidence, num_encoded)


def _read_by_tower(frames: NDArray[np.uint8], recipe: Any) -> NDArray[np.uint8]:
    """Cut frames (T, h, w, 3) to the central square if the vision tower reads no more."""
    if isinstance(recipe, VisionImageProcessor):
        crops = recipe.keep_aspect
    else:
        crops = bool(getattr(recipe.processor.video_processor, "do_center_crop", False))
    if not crops:
        return frames
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return frames[:, top : top + side, left : left + side]
