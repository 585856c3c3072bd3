"""Makers of tiny checkpoints: other towers, changed settings, damage."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.model.builder import load_pretrained_model
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
ENCODER = "model.vision_tower.vision_tower."


@pytest.fixture(scope="module")
def without_wandb():
    """Let a module import timm in less than a second: timm imports wandb where it finds it, which takes six."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "wandb", None)
        yield


@pytest.fixture
def make_checkpoint(write_checkpoint, tmp_path: Path):
    """Writes a checkpoint to a folder of the test; see `write_checkpoint`."""

    def make(name: str = "checkpoint", **settings: Any) -> tuple[Path, LlavaQwenForCausalLM]:
        return write_checkpoint(tmp_path / name, **settings)

    return make


@pytest.fixture(scope="session")
def write_checkpoint(llava_golden: Path):
    """Writes a checkpoint with seeded random weights; returns its folder and the model that was written."""

    def write(folder: Path, without: str = "", **settings: Any) -> tuple[Path, LlavaQwenForCausalLM]:
        source = llava_golden / "ckpt-video"
        config = {**json.loads((source / "config.json").read_text()), "vision_config": None, **settings}
        torch.manual_seed(0)
        model = LlavaQwenForCausalLM(LlavaQwenConfig.from_dict(config)).eval()
        model.save_pretrained(folder)
        weights = load_file(folder / "model.safetensors")
        if not model.get_vision_tower().name.startswith("open_clip_hub:"):
            # A model that was never loaded is saved without this level; LLaVA-NeXT's checkpoints have it.
            weights = {key.replace(ENCODER, f"{ENCODER}vision_model."): value for key, value in weights.items()}
        kept = {key: value for key, value in weights.items() if not without or not key.startswith(without)}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
        for file in TOKENIZER_FILES:
            shutil.copy(source / file, folder / file)
        return folder, model

    return write


@pytest.fixture
def rejection(monkeypatch):
    """Loads a checkpoint that must be refused before a model is built; returns the message, which is one line."""

    def load(folder: Path | str, **options: Any) -> str:
        def build(*_args: Any, **_kwargs: Any) -> None:
            pytest.fail("a model is built of it")

        monkeypatch.setattr(LlavaQwenForCausalLM, "__init__", build)
        with pytest.raises(ValueError) as caught:  # noqa: PT011  the caller compares the message
            load_pretrained_model(str(folder), None, "x", attn_implementation="sdpa", **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return load
