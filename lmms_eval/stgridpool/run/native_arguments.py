"""The arguments of ``--model_args`` for the model ``video_hf``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lmms_eval_stgridpool.run.arguments import Arguments
from stgridpool import options
from stgridpool.adapters.names import POLICIES

if TYPE_CHECKING:
    from stgridpool import Compressor

OWN, LMMS_EVAL = "own", "lmms_eval"


@dataclass(frozen=True)
class NativeArguments(Arguments):
    """Arguments of the model ``video_hf``, checked; for attributes that are not listed see `Arguments`.

    Attributes:
        pretrained: Folder or Hugging Face name of a checkpoint of a native model of transformers, of any family that
            `stgridpool.adapters` supports.
        max_frames_num: Maximum number of frames of a video, 1 to 100,000: from longer videos this many are sampled
            evenly. None for the family's own maximum, or for the 32 of lmms-eval's models.
        fps: Frames sampled per second of video, 0.001 to 1000; None for the family's own rate.
        sampling: "own" samples frames as the family's processor does, "lmms_eval" samples and resizes them as
            lmms-eval's models ``qwen2_5_vl``, ``qwen3_vl`` and ``llava_hf`` do.
        positions: The positions of tokens, see `stgridpool.adapters.compress_inputs`; "hf" takes the positions that the
            installed transformers computes, which differ from those of the training for long videos.
        system_prompt: A system prompt before every question; None leaves it to the chat template.
        min_pixels: Fewest pixels that the processor may resize a video to, where it resizes by pixels: those of a
            frame, in Qwen3-VL and later of all frames together. None follows the checkpoint, or lmms-eval's models.
        max_pixels: The same for the most pixels.

    Raises:
        ValueError: If an argument has the wrong type or is out of range, or a path is empty.
        TypeError: If a path is a number.
    """

    MODEL: ClassVar[str] = "video_hf"
    SAMPLINGS: ClassVar[Sequence[str]] = (OWN, LMMS_EVAL)
    ABSENT: ClassVar[Mapping[str, str]] = {
        "conv_template": "prompts follow the checkpoint's own chat template",
        "model_name": "the checkpoint's configuration says what it is",
        "mm_newline_position": "newlines stand where the checkpoint's configuration has them",
        "add_time_instruction": "the processor writes time stamps, in families that were trained with them",
        "force_sample": "sampling, fps and max_frames_num decide which frames are sampled",
        "pool_head": "it belongs to llava_video, whose checkpoints leave the head out",
        "text_tower": "it belongs to llava_video, whose checkpoints leave the text half out",
        "rope_scaling": "positions are those of the checkpoint's configuration",
        "max_length": "prompts of native models have no limit",
        "vision_batch_size": "the vision part of a native model encodes a video as a whole",
    }

    sampling: str = OWN
    positions: str = POLICIES[0]
    system_prompt: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        options.choice("positions", self.positions, POLICIES)
        if self.system_prompt is not None:
            options.text("system_prompt", self.system_prompt)
        for name in ("min_pixels", "max_pixels"):
            if getattr(self, name) is not None:
                options.whole_number(name, getattr(self, name), 1, 10**12)
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels must be at most max_pixels, got {self.min_pixels} and {self.max_pixels}")

    def build_compressor(self) -> Compressor:
        """Build the compressor.

        Raises:
            ValueError: See `Arguments.build_compressor`; and if it acts before the features.
        """
        from stgridpool.adapters.places import check_places  # noqa: PLC0415 - imports torch

        compressor = super().build_compressor()
        check_places(compressor)
        return compressor

    def frame_options(self) -> dict[str, Any]:
        """Return the options that decide which frames are sampled, and at which size."""
        return super().frame_options() | {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
