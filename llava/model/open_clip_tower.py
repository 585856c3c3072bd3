"""OpenClipTower: vision towers of open_clip, for checkpoints whose tower is named `open_clip_hub:NAME`."""

from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import Attention as OpenClipAttention
from timm.layers.attention import Attention as TimmAttention
from torch import nn

from llava.image_processing import VisionImageProcessor
from llava.model.tower import VisionTower, check_select_feature
from llava.model.tower_evidence import AttentionLayer, TowerEvidence, split_heads
from llava.model.tower_files import OPEN_CLIP_PREFIX, missing_tower
from stgridpool.suggestion import suggestion

_LOCAL_PREFIX = "local-dir:"


class OpenClipTower(VisionTower):
    """The image encoder of an open_clip model, up to a block.

    Unlike LLaVA-NeXT, we keep all patches of an encoder without a class token under `patch`, and take the width from
    the model.

    Args:
        name: `open_clip_hub:` and a model name of open_clip, which may be `local-dir:` and a folder.
        pretrained: Tag or file of the weights; None if the name tells where they are.
        select_layer: The block whose output is used, counted from the end: -1 is the last.
        select_feature: `patch` for features without the class token, `cls_patch` for features with it, `conv_flatten`
            for the map of a convolutional encoder.

    Raises:
        ValueError: If the name, `select_layer` or `select_feature` does not exist, or the encoder has buffers that
            checkpoints do not contain.
    """

    def __init__(self, name: str, pretrained: str | None, select_layer: int, select_feature: str) -> None:
        check_select_feature(select_feature, ("patch", "cls_patch", "conv_flatten"))
        if select_layer >= 0:
            raise ValueError(f"mm_vision_select_layer must be negative for OpenCLIP towers, got {select_layer}")
        model_name = name.removeprefix(OPEN_CLIP_PREFIX)
        _check_model_name(name, model_name)
        # No weights: the checkpoint's follow. While a model is loaded the default device is "meta", and nothing takes
        # memory.
        visual: Any = open_clip.create_model(
            model_name,
            device=torch.get_default_device(),
            load_weights=False,
            pretrained_image=False,
            pretrained_text=False,
        ).visual
        if any(module._non_persistent_buffers_set for module in visual.modules()):
            raise ValueError(
                f"{name} computes buffers that its weights do not hold; such OpenCLIP towers are not supported"
            )
        transform = {
            **visual.preprocess_cfg,
            **(open_clip.get_pretrained_cfg(model_name, pretrained) if pretrained else {}),
        }
        side = visual.image_size[0] if isinstance(visual.image_size, tuple | list) else visual.image_size
        processor = VisionImageProcessor(side, tuple(transform["mean"]), tuple(transform["std"]), keep_aspect=True)
        stem = next(module for module in visual.modules() if isinstance(module, nn.Conv2d))
        trunk = getattr(visual, "trunk", None)
        width = stem.out_channels if trunk is None else trunk.num_features
        super().__init__(name, visual, processor, stem.kernel_size[0], width)
        self.model_name = model_name
        self.pretrained = pretrained
        self.select_layer = select_layer
        self.select_feature = select_feature

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Compute the output of the selected block, before the last normalisation."""
        is_map = self.select_feature == "conv_flatten"
        output = self.vision_tower.forward_intermediates(
            pixel_values,
            indices=[self.select_layer],
            stop_early=True,
            intermediates_only=True,
            output_fmt="NCHW" if is_map else "NLC",
            output_extra_tokens=self.select_feature == "cls_patch",
        )
        block: torch.Tensor = output["image_intermediates"][0]
        if is_map:
            return block.flatten(2).transpose(1, 2)
        prefix = output.get("image_intermediates_prefix")
        return block if prefix is None else torch.cat([prefix[0], block], dim=1)

    def evidence(self) -> TowerEvidence:
        """See the base class. Attention is available in open_clip's own transformers and in timm's plain ones."""
        trunk = getattr(self.vision_tower, "trunk", None)
        if trunk is None:
            blocks, has_class_token = self.vision_tower.transformer.resblocks, True
        else:
            blocks, has_class_token = getattr(trunk, "blocks", ()), getattr(trunk, "cls_token", None) is not None
        num_run = len(blocks) + self.select_layer + 1
        layers = [_attention_layer(block) for block in blocks[:num_run]]
        known = [layer for layer in layers if layer is not None]
        behind = next(map(_attention_layer, blocks[num_run:]), None)
        known = known if len(known) == len(layers) else []
        is_complete = num_run == len(blocks)
        return TowerEvidence(
            self.name, known, self.num_patches, has_class_token, behind=behind, is_complete=is_complete
        )

    def named_weights(self) -> dict[str, torch.Tensor]:
        """See the base class."""
        has_source = self.pretrained is not None or ":" in self.model_name
        if not has_source:
            raise ValueError(f"the checkpoint holds no weights of {self.name}: name them in vision_tower_pretrained")
        model = open_clip.create_model(
            self.model_name, pretrained=self.pretrained, device="cpu", require_pretrained=True
        )
        weights: dict[str, torch.Tensor] = model.visual.state_dict()
        return weights


def _attention_layer(block: nn.Module) -> AttentionLayer | None:
    """Describe where to read queries and keys in a block; None if its attention is of another kind."""
    attention: Any = getattr(block, "attn", None)
    if isinstance(attention, TimmAttention):
        return AttentionLayer(block, attention.q_norm, attention.k_norm, _as_is, _as_is, attention.scale, block)
    if isinstance(attention, OpenClipAttention) and not attention.scaled_cosine:
        return AttentionLayer(block, attention.ln_q, attention.ln_k, _as_is, _as_is, attention.scale, block)
    if isinstance(attention, nn.MultiheadAttention) and attention.batch_first and attention._qkv_same_embed_dim:
        source: Any = (
            block.ln_1
        )  # the projections are not modules, and a hook would keep the attention off its fast path
        queries, keys = (partial(_project, attention, part) for part in range(2))
        return AttentionLayer(block, source, source, queries, keys, attention.head_dim**-0.5, block)
    return None


def _as_is(heads: torch.Tensor) -> torch.Tensor:
    return heads


def _project(attention: nn.MultiheadAttention, part: int, tokens: torch.Tensor) -> torch.Tensor:
    """Compute queries (part 0) or keys (part 1) of tokens (B, L, C): (B, heads, L, d)."""
    width = attention.embed_dim
    rows = slice(part * width, (part + 1) * width)
    bias = None if attention.in_proj_bias is None else attention.in_proj_bias[rows]
    projected = nn.functional.linear(tokens, attention.in_proj_weight[rows], bias)
    return split_heads(attention.num_heads, projected)


def _check_model_name(name: str, model_name: str) -> None:
    """Check that a name is a model of open_clip or a folder; open_clip itself checks hub names.

    Raises:
        ValueError: If it is neither.
    """
    if model_name.startswith(_LOCAL_PREFIX):
        if not Path(model_name.removeprefix(_LOCAL_PREFIX)).is_dir():
            raise ValueError(missing_tower(name))
    elif ":" not in model_name and open_clip.get_model_config(model_name) is None:
        raise ValueError(
            f"mm_vision_tower={name!r}: open_clip has no model {model_name!r}"
            f"{suggestion(model_name, open_clip.list_models())}"
        )
