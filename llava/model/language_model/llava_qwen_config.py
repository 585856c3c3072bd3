"""The configuration of the LLaVA-Video and LLaVA-OneVision checkpoints."""

from typing import Any

from transformers import Qwen2Config


class LlavaQwenConfig(Qwen2Config):
    """Configuration of a checkpoint: that of Qwen2 and the settings of the multimodal part.

    Attributes:
        mm_vision_tower: Name or folder of the vision tower.
        vision_config: Geometry of the vision tower; if it is missing, it is looked up by the tower's name.
        vision_tower_pretrained: Weights of an OpenCLIP tower, if the checkpoint has none.
        mm_hidden_size: Width of the tower's features.
        mm_projector_type: See `build_projector`.
        mm_vision_select_layer: The layer of a CLIP or OpenCLIP tower whose output is used.
        mm_vision_select_feature: The tokens of that layer that are used.
        mm_patch_merge_type: See `merge_image`.
        mm_newline_position: See `insert_newlines`; videos only.
        mm_spatial_pool_mode: The checkpoint's own pooling of videos: average, max or bilinear.
        mm_tunable_parts: The trained parts; it includes the vision tower if the checkpoint contains its weights.
        unfreeze_mm_vision_tower: Whether the vision tower was trained, in older checkpoints.
        mm_use_im_start_end: Whether prompts put an image between start and end tokens.
        mm_use_im_patch_token: Whether the tokenizer has an image patch token.
        mm_resampler_type: Must be None: no released checkpoint has a resampler.
        add_faster_video: Must be false: unreachable in the released code.
        tokenizer_model_max_length: Longest prompt in tokens, including visual ones; None for no limit.
        tokenizer_padding_side: Side on which shorter prompts of a batch are padded.
    """

    model_type = "llava_qwen"

    mm_vision_tower: str | None = None
    vision_config: dict[str, Any] | None = None
    vision_tower_pretrained: str | None = None
    mm_hidden_size: int | None = None
    mm_projector_type: str = "linear"
    mm_vision_select_layer: int = -2
    mm_vision_select_feature: str = "patch"
    mm_patch_merge_type: str = "flat"
    mm_newline_position: str = "one_token"
    mm_spatial_pool_mode: str = "bilinear"
    mm_tunable_parts: str | None = None
    unfreeze_mm_vision_tower: bool | None = None
    mm_use_im_start_end: bool = False
    mm_use_im_patch_token: bool = True
    mm_resampler_type: str | None = None
    add_faster_video: bool | None = False
    tokenizer_model_max_length: int | None = None
    tokenizer_padding_side: str = "right"

    @property
    def features_per_patch(self) -> int:
        """Number of the tower's features that the projector reads for each patch; several if there are scales."""
        return 1
