"""Checkpoint: the configuration and the weight files of a LLaVA checkpoint, compared before any weight is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import PreTrainedTokenizerBase

from llava.model.geometry import check_geometry, holds_tower, trains_tower
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM
from llava.model.settings import make_config, read_settings
from llava.model.tokenizer import load_tokenizer
from llava.model.tower_files import check_tower_files
from stgridpool.checkpoint_files import StoredTensor, hub_commit, stored_tensors


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint whose configuration and files agree.

    Attributes:
        folder: The checkpoint.
        config: Its configuration.
        tensors: The tensors in its weight files, by name.
        source: Source of the configuration, for messages.
        model_class: Class of the model; class attribute.
    """

    model_class: ClassVar[type[LlavaQwenForCausalLM]] = LlavaQwenForCausalLM

    folder: Path
    config: LlavaQwenConfig
    tensors: Mapping[str, StoredTensor]
    source: str

    def outline(self) -> LlavaQwenForCausalLM:
        """Build the model without weights, on the device "meta": it counts and checks, and cannot compute."""
        with torch.device("meta"):
            model: Any = self.model_class(self.config)
        outline: LlavaQwenForCausalLM = model.eval()
        return outline

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer, see `load_tokenizer`."""
        return load_tokenizer(self.folder, self.config)

    def load(self, **options: Any) -> tuple[LlavaQwenForCausalLM, dict[str, Any]]:
        """Load the weights, tensor by tensor.

        Args:
            **options: Of ``from_pretrained``.

        Returns:
            The model, and which weights are missing, unexpected, or of another shape.
        """
        return self._load_from(self.folder, **options)

    def _load_from(self, folder: Path, **options: Any) -> tuple[LlavaQwenForCausalLM, dict[str, Any]]:
        loaded: Any = self.model_class.from_pretrained(
            folder,
            config=self.config,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # judged afterwards, with names and shapes
            output_loading_info=True,
            **options,
        )
        model, info = loaded
        return model, info

    def finish(self, model: LlavaQwenForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
        """Truncate the embeddings and the head to the length of the tokenizer, like LLaVA-NeXT's loader.

        Raises:
            ValueError: If the rows are offloaded.
        """
        length = len(tokenizer)
        if length == model.get_input_embeddings().weight.shape[0]:
            return
        if any(module.weight.is_meta for module in (model.get_input_embeddings(), model.get_output_embeddings())):
            raise ValueError(
                "embed_tokens and lm_head cannot be offloaded: give them a device in device_map, or a smaller model"
            )
        model.resize_token_embeddings(length)


def read_llava(folder: Path, customized: Any = None, overwrites: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read and compare the files of a checkpoint in LLaVA-NeXT's format; see `llava.model.checkpoint.read_checkpoint`.

    Raises:
        ValueError: If the checkpoint is of another kind, contradicts itself, or lacks files or weights.
    """
    settings, source = read_settings(folder, customized, overwrites or {})
    tensors = stored_tensors(folder)
    config = make_config(settings, tensors, source)
    config._commit_hash = hub_commit(folder)
    if not holds_tower(tensors) and not trains_tower(config):
        check_tower_files(str(config.mm_vision_tower))
    check_geometry(config, tensors, source)
    return Checkpoint(folder, config, tensors, source)
