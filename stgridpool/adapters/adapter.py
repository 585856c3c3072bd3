"""Adapter: what is specific to a family of transformers models; EncodedVisual: a video that its vision part encoded.

All placeholder layouts follow one rule: the k-th token of a video, in (frame, row, column) order, stands at the video's
k-th placeholder. Line breaks, time stamps and marks between frames are text and keep their places.

Letters: B prompts, L positions with padding, T frames of H x W tokens, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from stgridpool.compressor import Compressor
from stgridpool.compressors.none import NoCompression
from stgridpool.evidence import Evidence
from stgridpool.plan import Shape

if TYPE_CHECKING:
    from stgridpool.adapters.prompt import CompressedPrompt

Inputs = Mapping[str, Any]
"""The output of a processor, by the names under which the model takes it."""

REFERENCE, HF = "reference", "hf"
IMAGE, VIDEO = "image", "video"

Clips = Sequence[Sequence[tuple[str, int]]]
"""For each prompt (kind, number of placeholder runs) of every visual, where images and videos share a placeholder."""


@dataclass(frozen=True, eq=False)
class EncodedVisual:
    """A video or image as the model's own vision part encodes it.

    Attributes:
        tokens: (T, H, W, D), as the unmodified model would read them.
        levels: DeepStack levels of the same tokens, (T * H * W, D) each.
        kept: (n,) int64, ascending, the tokens that have a placeholder, if the model itself drops some; None for all.
        patches: (T, P, Q, D), the tokens before the model's own pooling; None if it has none.
        evidence: What a method asked of the vision part, about the patches, or about the tokens if there are none.
        kind: "video", or "image" for an image that shares the placeholder of videos.
        reused: Which of the T the vision tower did not encode, because they equal earlier ones of the same call.
    """

    tokens: Tensor
    levels: tuple[Tensor, ...] = ()
    kept: Tensor | None = None
    patches: Tensor | None = None
    evidence: Evidence = field(default_factory=dict)
    kind: str = VIDEO
    reused: tuple[int, ...] = ()


class Adapter:
    """A family of transformers models. The defaults: a placeholder for videos, 1-D positions, features replace.

    To add a family, write a subclass in its own file and list it in `stgridpool.adapters.families`. It must set
    `model_types` and `video_inputs` and define `encode`; everything else has a default.

    A compressor at the place "patches" replaces the model's own pooling and sees the `patches` of `EncodedVisual`. A
    model without own pooling has none: there "patches" and "tokens" are the same place.

    Attributes:
        model_types: Values of ``config.model_type`` that it serves; class attribute.
        video_inputs: Inputs of the model that describe videos, the pixels first; consumed here; class attribute.
        image_inputs: Inputs of the model that describe images, the pixels first; class attribute.
        row_inputs: (B, L) inputs that the model reads besides the ids, gathered in the same way; class attribute.
        position_inputs: Inputs that the model needs only to compute positions, which it gets from us; class attribute.
        is_one_run: Whether the placeholders of a video follow one another without text in between; class attribute.
        adds: Whether features are added to the embedding of the placeholder instead of replacing it; class attribute.
        attends_both_ways: Whether visual tokens attend to later ones, too, so that no compressor can act inside the
            language model; class attribute.
        encodes_frames_alone: Whether the vision tower encodes each frame, or each few that make a patch in time,
            without regard to the others, so that those that equal earlier ones need not be encoded; class attribute.
        tower_name: The attribute of ``model.model`` that is the vision tower of videos, or None; class attribute.
        lists_per_prompt: Whether the processor takes a list of videos for each prompt, not one list; class attribute.
        sampling: How many frames the family takes if a checkpoint's processor does not say: "fps", frames per second
            of video, or "num_frames"; class attribute.
        blank_options: Options with which the video processor does not look at the values of pixels; class attribute.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    video_inputs: ClassVar[tuple[str, ...]] = ("pixel_values_videos",)
    image_inputs: ClassVar[tuple[str, ...]] = ("pixel_values",)
    row_inputs: ClassVar[tuple[str, ...]] = ()
    position_inputs: ClassVar[tuple[str, ...]] = ()
    is_one_run: ClassVar[bool] = True
    adds: ClassVar[bool] = False
    attends_both_ways: ClassVar[bool] = False
    encodes_frames_alone: ClassVar[bool] = False
    tower_name: ClassVar[str | None] = None
    lists_per_prompt: ClassVar[bool] = False
    sampling: ClassVar[Mapping[str, float]] = {"num_frames": 32}
    blank_options: ClassVar[Mapping[str, Any]] = {}

    def slots(self, model: Any, inputs: Inputs, kind: str = VIDEO) -> Tensor:
        """Tell which positions are placeholders of videos, or of images: (B, L) bool.

        Args:
            model: The model.
            inputs: The output of its processor.
            kind: "video" or "image".
        """
        ids: Tensor = inputs["input_ids"]
        return ids == placeholder_id(model.config, kind)

    def encode(self, model: Any, inputs: Inputs, clips: Clips | None = None) -> list[EncodedVisual]:
        """Encode the videos with the model's own vision part, in the order of the prompts.

        Args:
            model: The model.
            inputs: The output of its processor, with at least one video.
            clips: See `Clips`; None if every visual with the placeholder belongs to one video.
        """
        raise NotImplementedError(f"{type(self).__name__} must define encode")

    def is_frame(self, model: Any, inputs: Inputs, clips: Clips | None) -> Sequence[bool] | None:
        """Tell which of the pictures that `encode` passes to the vision tower are frames of videos; None if all are.

        Args:
            model: The model.
            inputs: The output of its processor, with at least one video.
            clips: See `Clips`.
        """
        return None

    def frames_per_token(self, model: Any) -> int:
        """Return the number of frames that a token is of: those that make a patch in time, or one."""
        return getattr(model.config.vision_config, "temporal_patch_size", None) or 1

    def encode_images(self, model: Any, inputs: Inputs) -> list[EncodedVisual]:
        """Encode the images, each as a video of one frame, in the order of the prompts.

        Raises:
            ValueError: If the family's images do not fill a lattice, so that they cannot be compressed.
        """
        raise ValueError(f"images of {model.config.model_type} cannot be compressed; leave out images=True")

    def tail(self, model: Any) -> Tensor | None:
        """Return rows (k, D) that follow each video and have their own placeholders; None if there are none."""
        return None

    def newline_position(self, model: Any) -> str | None:
        """Return where newline tokens, the rows of `tail`, go: one of `NEWLINE_POSITIONS`; None to leave them in place.

        A checkpoint may have been trained with a different layout from that of the class that runs it.
        """
        return None

    def source_shape(self, model: Any, video: Inputs) -> Shape:
        """Return (T, H, W) of a video's patches, or of its tokens without own pooling, before anything is encoded.

        Args:
            model: The model; its weights may be on the device "meta".
            video: The output of the checkpoint's video processor for this video alone, whose pixels may be there, too.
        """
        pixels: Tensor = video[self.video_inputs[0]]  # (1, T, 3, h, w)
        frames, _, height, width = pixels.shape[1:]
        side = model.config.vision_config.patch_size
        return frames, height // side, width // side

    def kept_tokens(self, video: Inputs) -> int | None:
        """Return the number of tokens that have a placeholder if the model itself drops some; None for all.

        Args:
            video: See `source_shape`; with pixels.
        """
        return None

    def own_pooling(self, model: Any) -> Compressor:
        """Return the pooling that turns a video's patches into tokens."""
        return NoCompression()

    def positions(self, model: Any, inputs: Inputs, kind: str) -> Tensor | None:
        """Return the positions (3, B, L) of the unmodified prompt in a model with M-RoPE, otherwise None.

        Args:
            model: The model.
            inputs: The output of its processor.
            kind: "reference" for the positions that the model was trained with, "hf" for those that the installed
                version of transformers computes.
        """
        return None

    def tower(self, model: Any) -> nn.Module | None:
        """Return the vision tower, whose attention and keys methods may need; with None, these methods are refused."""
        tower: nn.Module | None = None if self.tower_name is None else getattr(model.model, self.tower_name)
        return tower

    def tower_rows(
        self, model: Any, inputs: Inputs, kind: str, rows: Tensor, visuals: Sequence[EncodedVisual]
    ) -> list[Tensor]:
        """Assign rows of the tower's patches, in the order of its attention, to visuals: one row for each token.

        Args:
            model: The model.
            inputs: The output of its processor.
            kind: "video" or "image".
            rows: (n, ...), one for each patch.
            visuals: The visuals; the rows of each are about its patches, or about its tokens if it has none.
        """
        from stgridpool.adapters.tower_evidence import rows_by_visual  # noqa: PLC0415  # it imports transformers

        return rows_by_visual(rows, visuals)

    def prefilling(self, model: Any, prompt: CompressedPrompt) -> AbstractContextManager[None]:
        """Pass what the inputs cannot hold, such as DeepStack levels, to the first forward in the block."""
        return nullcontext()

    def first_layer(self, model: Any) -> int:
        """Return the first decoder layer whose input a compressor may change."""
        return 0


def placeholder_id(config: Any, kind: str) -> int:
    """Return the id of the placeholder for videos or images.

    Raises:
        ValueError: If the configuration does not name it.
    """
    for name in (f"{kind}_token_id", f"{kind}_token_index"):
        if getattr(config, name, None) is not None:
            return int(getattr(config, name))
    raise ValueError(f"the configuration of {config.model_type} names no placeholder for a {kind}")
