"""Small checkpoints to convert, and a function that makes others of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file


@pytest.fixture
def changed(tmp_path: Path, llava_golden: Path) -> Callable[..., Path]:
    """Function that copies the golden video checkpoint with other settings and, through a function, other weights."""

    def change(weights: Callable[[dict], dict] = dict, **settings: Any) -> Path:
        folder = tmp_path / "original"
        shutil.copytree(llava_golden / "ckpt-video", folder)
        edit(folder / "config.json", **settings)
        tensors = load_file(folder / "model.safetensors")
        save_file(weights(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return change


def edit(path: Path, **settings: Any) -> None:
    """Set entries of a JSON file; None removes one."""
    content = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


@pytest.fixture
def edit_json() -> Callable[..., None]:
    return edit
