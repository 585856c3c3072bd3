"""NativeRecipe: how a processor turns a video into inputs, and questions about it into prompts without its frames.

A processor writes as many placeholders into a prompt as a video has tokens, with time stamps between them. It needs
the output of its video processor for that, but not the pixels. So the video processor runs once per video, and its
output, with empty tensors instead of the pixels, is reused in all prompts about the video.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from numpy.typing import NDArray
from torch import Tensor
from transformers import BatchFeature

from stgridpool.adapters.frame_rules import FrameRule, Source
from stgridpool.checkpoint_files import one_line

RECORD, SHAPE, FRAMES, SOURCE = "record.", "record.shape.", "frames", "source"
"""Names of tensors that describe a video to its processor: they begin with the first two, or are the last two."""


class NativeRecipe:
    """The conversion of frames into the inputs of a native model.

    Args:
        processor: The processor of the checkpoint; it is not changed.
        rule: Chooses the frames.
        dtype: Dtype of the pixels.
        lists_per_prompt: See `Adapter`.

    Attributes:
        resizing: Nothing: the processor resizes frames itself, and no other code gives the same pixels.

    Raises:
        ValueError: If the checkpoint has no chat template.
    """

    resizing = None

    def __init__(self, processor: Any, rule: FrameRule, dtype: torch.dtype, lists_per_prompt: bool = False) -> None:
        if processor.chat_template is None:
            raise ValueError(
                "the checkpoint has no chat template, so questions cannot be formatted: add "
                "chat_template.jinja to its folder"
            )
        self.processor, self.rule, self._dtype = processor, rule, dtype
        self._lists_per_prompt = lists_per_prompt

    def inputs(self, frames: NDArray[np.uint8], indices: Sequence[int], source: Source) -> dict[str, Tensor]:
        """Return the model's inputs for a prompt of the video alone, and a record of the video for further prompts.

        Args:
            frames: (T, h, w, 3) uint8.
            indices: The position of each frame in the file.
            source: The file.
        """
        shown, options = self.rule.prepare(frames)
        recorder = _Recorder(self.processor.video_processor)
        text = self.text([{"role": "user", "content": [{"type": "video"}]}])
        inputs = self._call(recorder, text, [shown], [_metadata(source, indices, frames.shape)], **options)
        found = {name: self._typed(name, value) for name, value in inputs.items() if isinstance(value, Tensor)}
        height, width = frames.shape[1:3]
        return found | recorder.tensors() | _facts(source, indices, (height, width))

    def outline(
        self, size: tuple[int, int], indices: Sequence[int], source: Source, blank: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return what the video processor makes of frames of a size, without their pixels, and the record of them.

        Where it marks tokens by their pixels, it marks all of them.

        Args:
            size: Height and width of the frames, in pixels.
            indices: The position of each frame in the file.
            source: The file.
            blank: See `Adapter.blank_options`.

        Returns:
            Its output, with pixels on the device "meta", and what `prompt` takes.
        """
        frames: Any = torch.empty((len(indices), *size, 3), dtype=torch.uint8, device="meta")
        shown, options = self.rule.prepare(frames)
        videos, metadata = [shown], [_metadata(source, indices, frames.shape)]
        lists = ([videos], [metadata]) if self._lists_per_prompt else (videos, metadata)
        options |= blank
        named = {"video_metadata": lists[1], "do_sample_frames": False, "return_tensors": "pt", **options}
        output = self.processor.video_processor(lists[0], **named)
        made = {name: value for name, value in output.items() if isinstance(value, Tensor)}
        for name, value in made.items():
            if value.is_meta and not name.startswith("pixel"):
                made[name] = torch.ones_like(value, device="cpu")
        return made, _record(made) | _facts(source, indices, size)

    def text(self, messages: Sequence[Mapping[str, Any]], opens_answer: bool = True) -> str:
        """Write messages by the chat template.

        Args:
            messages: Turns, as `apply_chat_template` takes them, without pictures.
            opens_answer: Whether the text ends where the answer begins.

        Raises:
            ValueError: If the template is missing or damaged.
        """
        try:
            text: str = self.processor.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=opens_answer
            )
        except (ArithmeticError, AttributeError, LookupError, TemplateError, TypeError) as error:
            raise ValueError(
                f"the checkpoint's chat template fails with {type(error).__name__}: {one_line(error)}; copy "
                "chat_template.jinja from the checkpoint this one was made of"
            ) from error
        return text

    def prompt(self, text: str, videos: Sequence[Mapping[str, Tensor]]) -> BatchFeature:
        """Return the inputs of a prompt about videos that have been processed; their pixels are empty tensors.

        Args:
            text: The prompt, with a placeholder for each video.
            videos: The record of each video, see `inputs`.
        """
        if not videos:
            alone: BatchFeature = self.processor(text=[text], return_tensors="pt")
            return alone
        shown = [np.zeros((len(video[FRAMES]), 2, 2, 3), dtype=np.uint8) for video in videos]
        metadata = [_recorded_metadata(video) for video in videos]
        return self._call(_StandIn(self.processor.video_processor, videos, metadata), text, shown, metadata)

    def _call(
        self, video_processor: Any, text: str, videos: Sequence[Any], metadata: Sequence[Any], **options: Any
    ) -> BatchFeature:
        """Call the processor with another video processor."""
        processor = copy.copy(self.processor)
        processor.video_processor = video_processor
        lists = (list(videos), list(metadata))
        if self._lists_per_prompt:
            lists = ([lists[0]], [lists[1]])
        named = dict(zip(("videos", "video_metadata"), lists, strict=True))
        inputs: BatchFeature = processor(text=[text], **named, do_sample_frames=False, return_tensors="pt", **options)
        return inputs

    def _typed(self, name: str, value: Tensor) -> Tensor:
        return value.to(self._dtype) if name.startswith("pixel") and value.is_floating_point() else value


class _Recorder:
    """A video processor that remembers what it has returned."""

    def __init__(self, video_processor: Any) -> None:
        self._video_processor = video_processor
        self._returned: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._video_processor, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self._video_processor(*args, **kwargs)
        self._returned = dict(output)
        return output

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that describe the video: shapes instead of pixels, everything else as it is."""
        return _record(self._returned)


def _record(returned: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what a video processor has returned: shapes instead of pixels, every other tensor as it is."""
    tensors = {name: value for name, value in returned.items() if isinstance(value, Tensor)}
    pixels = {name: value for name, value in tensors.items() if name.startswith("pixel")}
    shapes = {SHAPE + name: torch.tensor(value.shape) for name, value in pixels.items()}
    return shapes | {RECORD + name: value for name, value in tensors.items() if name not in pixels}


class _StandIn:
    """A video processor that returns what was recorded."""

    def __init__(self, video_processor: Any, videos: Sequence[Mapping[str, Tensor]], metadata: Sequence[Any]) -> None:
        self._video_processor, self._videos, self._metadata = video_processor, videos, metadata

    def __getattr__(self, name: str) -> Any:
        return getattr(self._video_processor, name)

    def __call__(self, *args: Any, **kwargs: Any) -> BatchFeature:
        found: dict[str, Any] = {}
        for name in [name for name in self._videos[0] if name.startswith(RECORD)]:
            values = [video[name].cpu() for video in self._videos]
            found[name.removeprefix(SHAPE).removeprefix(RECORD)] = (
                _empty([value.tolist() for value in values]) if name.startswith(SHAPE) else torch.cat(values)
            )
        return BatchFeature(found | {"video_metadata": list(self._metadata)})


def _empty(shapes: Sequence[list[int]]) -> Tensor:
    """Return a tensor of the size of tensors of these shapes, concatenated, that takes no memory.

    Raises:
        ValueError: If they cannot be concatenated.
    """
    if len({tuple(shape[1:]) for shape in shapes}) > 1:
        raise ValueError(
            f"this family needs videos of equal size and number of frames in one prompt, got {shapes}: choose a "
            "smaller max_frames_num, so that all have as many"
        )
    return torch.zeros(()).expand(sum(shape[0] for shape in shapes), *shapes[0][1:])


def _facts(source: Source, indices: Sequence[int], size: tuple[int, int]) -> dict[str, Tensor]:
    """Return what processors are told about a video, as tensors by name."""
    numbers = torch.tensor([source.num_frames, source.frame_rate, *size], dtype=torch.float64)
    return {FRAMES: torch.tensor(indices), SOURCE: numbers}


def _metadata(source: Source, indices: Sequence[int], shape: Sequence[int]) -> Any:
    return source.metadata(frames_indices=list(indices), height=shape[1], width=shape[2])


def _recorded_metadata(video: Mapping[str, Tensor]) -> Any:
    num_frames, rate, height, width = video[SOURCE].tolist()
    return _metadata(Source(int(num_frames), rate), video[FRAMES].tolist(), (0, int(height), int(width)))
