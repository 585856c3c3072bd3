"""NvilaCheckpoint: an NVILA checkpoint, compared with its configuration before any weight is read."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from transformers import GenerationConfig, PreTrainedTokenizerBase

from llava.model.geometry import check_geometry
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM
from llava.model.llava_checkpoint import Checkpoint
from llava.model.settings import make_config
from llava.nvila.configuration import NvilaConfig
from llava.nvila.encoders import MediaEncoder
from llava.nvila.layout import PARTS, part_folder
from llava.nvila.model import NvilaForCausalLM
from llava.nvila.settings import read_nvila_settings, read_root
from llava.nvila.tokenizer import load_nvila_tokenizer, stop_ids
from stgridpool.checkpoint_files import INDEX, StoredTensor, hub_commit, stored_tensors

RENAMED = {r"^vision_model\.": "model.vision_tower.vision_tower.vision_model.", r"^layers\.": "model.mm_projector."}
"""Names of tensors in the files, as patterns, and in the model; those of the language model are equal."""


@dataclass(frozen=True, eq=False)
class NvilaCheckpoint(Checkpoint):
    """A checkpoint whose configuration and files agree; for attributes that are not listed see `Checkpoint`.

    Attributes:
        tensors: The tensors in its weight files that the model has, by their names in the model.
        root: The settings of its config.json, with what takes precedence over them.
    """

    model_class: ClassVar[type[LlavaQwenForCausalLM]] = NvilaForCausalLM

    root: Mapping[str, Any]

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        folder = part_folder(self.folder, self.root, "llm")
        return load_nvila_tokenizer(folder, self.config, self.root.get("chat_template"))

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer, see `load_nvila_tokenizer`."""
        return self._tokenizer

    def load(self, **options: Any) -> tuple[LlavaQwenForCausalLM, dict[str, Any]]:
        """Load the weights of all parts, tensor by tensor; see `Checkpoint.load`.

        transformers gets one index for the files of all three folders, so that nothing is copied. Links stay: those of
        the hub's cache point to files without the ending by which transformers knows their format. The generation
        settings in the folders have no effect, as in the original.
        """
        index = {tensor.name: str(tensor.path.absolute()) for tensor in self.tensors.values()}
        with TemporaryDirectory() as folder:
            Path(folder, INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}), encoding="utf-8")
            model, info = self._load_from(
                Path(folder), key_mapping=RENAMED, generation_config=self._generation(), **options
            )
        model.name_or_path = model.config._name_or_path = str(self.folder)
        return model, info

    def finish(self, model: LlavaQwenForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
        """Do nothing: the embeddings keep their rows."""

    def _generation(self) -> GenerationConfig:
        """Return greedy generation without penalties, ended by the ids that end an answer."""
        tokenizer = self.tokenizer()
        special = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id}
        return GenerationConfig(eos_token_id=stop_ids(tokenizer), **special)


def read_nvila(folder: Path, overwrites: Mapping[str, Any]) -> NvilaCheckpoint:
    """Read the configuration and the headers of the weight files, and compare them.

    Args:
        folder: The checkpoint.
        overwrites: Settings that take precedence over those of the configuration.

    Raises:
        ValueError: If the checkpoint contradicts itself, or lacks files or weights.
    """
    root = read_root(folder, overwrites)
    settings, source = read_nvila_settings(folder, root, overwrites)
    tensors: dict[str, StoredTensor] = {}
    for part in PARTS:
        for name, tensor in stored_tensors(part_folder(folder, root, part)).items():
            tensors[_in_model(name)] = tensor
    last = f"model.vision_tower.vision_tower.vision_model.encoder.layers.{_last_layer(settings)}."
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(last)}  # never run
    config = make_config(settings, tensors, source, NvilaConfig)
    config._commit_hash = hub_commit(folder) or hub_commit(folder.parent)
    check_geometry(config, tensors, source)
    checkpoint = NvilaCheckpoint(folder, config, tensors, source, root)
    _set_tokens(config, root, checkpoint.tokenizer(), source)
    return checkpoint


def _in_model(name: str) -> str:
    for pattern, replacement in RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return name


def _last_layer(settings: Mapping[str, Any]) -> int:
    """Return the number of the tower's last layer, whose output NVILA does not use."""
    return int(settings["vision_config"].get("num_hidden_layers", 27)) - 1


def _set_tokens(config: LlavaQwenConfig, root: Mapping[str, Any], tokenizer: Any, source: str) -> None:
    """Set the ids of the tokens around images and frames, and the pooling of the video encoder."""
    image = MediaEncoder.of("image_encoder", root.get("image_encoder"), source)
    video = MediaEncoder.of("video_encoder", root.get("video_encoder"), source)

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False).input_ids) if text else []

    config.image_start_ids, config.image_end_ids, config.tile_end_ids = ids(image.start), ids(image.end), ids("\n")
    config.video_start_ids, config.video_end_ids, config.video_sep_ids = map(ids, (video.start, video.end, video.sep))
    config.pool_sizes = [list(size) for size in video.pool_sizes]
