"""The arguments of ``--model_args`` for the model ``llava_video``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from llava.conversation import conv_templates
from llava.frame_choice import INDEX, NEAREST, SAMPLINGS
from llava.nvila.layout import DEFAULT_FRAMES, VIDEO_ENCODINGS, own_settings
from lmms_eval_stgridpool.run.arguments import Arguments
from stgridpool import options
from stgridpool.newline_counts import NEWLINE_POSITIONS

DETERMINISTIC_VISION_BATCH = 8
LONGEST_CONTEXT = 10_000_000


@dataclass(frozen=True)
class LlavaArguments(Arguments):
    """Arguments of the model ``llava_video``, checked; for attributes that are not listed see `Arguments`.

    Attributes:
        pretrained: Folder or Hugging Face name of a LLaVA-Video, LLaVA-OneVision or NVILA checkpoint in its original
            format.
        conv_template: Name of the prompt template; None for "qwen_1_5", or the chat template of an NVILA checkpoint.
        model_name: Hint about the kind of checkpoint, accepted because scripts for LLaVA-NeXT pass it; the checkpoint's
            own configuration decides.
        max_frames_num: Maximum number of frames of a video, 1 to 100,000. From longer videos this many frames are
            sampled evenly. None for 64, or the `num_video_frames` of an NVILA checkpoint.
        fps: Frames sampled per second of video, 0.001 to 1000, in addition to the last frame. STTM's F-128_fps-1 is
            max_frames_num=128,fps=1. None is LLaVA-Video's rule: one frame per second, in steps of whole frames, which
            differs from fps=1.
        sampling: "index" counts frames and relies on the frame rate that a file declares, as LLaVA-Video does; "time"
            samples frames at evenly spaced display times. If the two differ, "index" logs a warning. "nearest" spreads
            `max_frames_num` frames evenly over every video, as NVILA does. None is "index", or "nearest" for an NVILA
            checkpoint without `fps` and `force_sample`.
        video_encoding: For NVILA only: "video" (default) lets the checkpoint's video encoder pool over time; "frames"
            encodes every frame as an image, without that pooling, as NVILA's code since May 2025.
        vision_batch_size: Number of frames that go through the vision tower at a time, 1 to 1,000,000, or "auto": as
            many as fit, and fewer after memory has run out.
        mm_newline_position: "grid", "frame", "one_token" or "no_token"; None follows the checkpoint.
        add_time_instruction: Whether to tell the model the video's length and the times of its frames.
        force_sample: Whether to sample `max_frames_num` frames evenly from every video, even a short one.
        pool_head: Folder or Hugging Face name of the SigLIP model that the vision tower was taken from. Compressors
            that use its pooling head need it, because LLaVA's checkpoints leave the head out.
        text_tower: Folder or Hugging Face name of the SigLIP or CLIP model that the vision tower was taken from, with
            its tokenizer. Compressors that compare patches or frames with the text of the question need it.
        rope_scaling: Factor of linear scaling, 1 to 1000: positions are divided by it before they are rotated. None
            follows the checkpoint.
        max_length: Longest prompt in positions, text included, 1 to 10,000,000; the checkpoint may not have been
            trained on that many. None follows the checkpoint. STTM ran VNBench (180 frames, 35,280 tokens) with 65,536
            and unscaled positions.

    Raises:
        ValueError: If an argument has the wrong type or is out of range, or a path is empty.
        TypeError: If a path is a number.
    """

    MODEL: ClassVar[str] = "llava_video"
    SAMPLINGS: ClassVar[Sequence[str]] = SAMPLINGS
    ABSENT: ClassVar[Mapping[str, str]] = {
        "system_prompt": "conv_template has one",
        "positions": "tokens before the language model are numbered without gaps",
        "min_pixels": "every frame is resized to the square of the vision tower",
        "max_pixels": "every frame is resized to the square of the vision tower",
    }

    conv_template: str | None = None
    model_name: str | None = None
    vision_batch_size: int | str = "auto"
    mm_newline_position: str | None = None
    video_encoding: str | None = None
    add_time_instruction: bool = False
    force_sample: bool = False
    pool_head: str | None = None
    text_tower: str | None = None
    rope_scaling: float | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pool_head", "text_tower"):
            self._check_path(name)
        if self.model_name is not None:
            options.text("model_name", self.model_name)
        if self.conv_template is not None:
            options.choice("conv_template", self.conv_template, conv_templates)
        if self.video_encoding is not None:
            options.choice("video_encoding", self.video_encoding, VIDEO_ENCODINGS)
        if self.mm_newline_position is not None:
            options.choice("mm_newline_position", self.mm_newline_position, NEWLINE_POSITIONS)
        for name in ("add_time_instruction", "force_sample"):
            options.flag(name, getattr(self, name))
        if self.vision_batch_size != "auto":
            options.whole_number("vision_batch_size (or auto)", self.vision_batch_size, 1, 1_000_000)
        if self.rope_scaling is not None:
            options.number("rope_scaling", self.rope_scaling, 1, 1000)
        if self.max_length is not None:
            options.whole_number("max_length", self.max_length, 1, LONGEST_CONTEXT)
        if self.fps is not None and self.force_sample:
            raise ValueError("set fps or force_sample, not both: force_sample ignores the frame rate")
        if self.sampling == NEAREST and (self.fps is not None or self.force_sample):
            raise ValueError("sampling=nearest always takes max_frames_num frames: leave fps and force_sample out")

    def for_checkpoint(self, settings: Mapping[str, Any]) -> Self:
        """Fill in what a checkpoint decides by the settings of its config.json, where no argument does.

        Raises:
            ValueError: If an argument does not suit this kind of checkpoint.
        """
        own = own_settings(settings)
        if self.video_encoding is not None and "video_encoding" not in own:
            raise ValueError(
                f"video_encoding={self.video_encoding} is for NVILA checkpoints, and {self.pretrained} is not one"
            )
        if self.fps is not None or self.force_sample:
            own["sampling"] = INDEX
        return replace(self, **{name: value for name, value in own.items() if getattr(self, name) is None})

    @property
    def most_frames(self) -> int:
        """Maximum number of frames of a video; before `for_checkpoint`, that of most checkpoints if none was given."""
        return self.max_frames_num or DEFAULT_FRAMES

    def frame_options(self) -> dict[str, Any]:
        """Return the options of `read_video` and `read_frame_folder` that decide which frames are sampled."""
        return super().frame_options() | {"force_sample": self.force_sample}

    def fixed_vision_batch_size(self) -> int | None:
        """Return `vision_batch_size`, or None if it may depend on free memory; in a deterministic run it must not."""
        if isinstance(self.vision_batch_size, int):
            return self.vision_batch_size
        return DETERMINISTIC_VISION_BATCH if self.deterministic else None

    def overwrites(self) -> dict[str, Any]:
        """Return the settings that take precedence over those of the checkpoint's configuration."""
        settings: dict[str, Any] = {}
        if self.mm_newline_position is not None:
            settings["mm_newline_position"] = self.mm_newline_position
        if self.video_encoding is not None:
            settings["video_encoding"] = self.video_encoding
        if self.rope_scaling is not None:
            settings["rope_scaling"] = {"rope_type": "linear", "factor": float(self.rope_scaling)}
        if self.max_length is not None:
            settings |= dict.fromkeys(("tokenizer_model_max_length", "max_position_embeddings"), self.max_length)
        return settings

    def recorded(self) -> dict[str, Any]:
        """Return the arguments that the record of a run shows as they were given."""
        own = ("add_time_instruction", "conv_template", "rope_scaling", "max_length")
        return super().recorded() | {name: getattr(self, name) for name in own}
