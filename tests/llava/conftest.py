"""The two tiny checkpoints of the golden data, loaded once or copied with changes, and their inputs."""

import json
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file


@contextmanager
def overridden(config: Any, **settings: Any) -> Iterator[None]:
    """Sets attributes of a configuration for a while."""
    before = {name: getattr(config, name, None) for name in settings}
    vars(config).update(settings)
    try:
        yield
    finally:
        vars(config).update(before)


def _loaded(folder: Path, dtype: str = "float32") -> SimpleNamespace:
    from llava.model.builder import load_pretrained_model

    tokenizer, model, processor, context = load_pretrained_model(
        str(folder), None, "llava_qwen", torch_dtype=dtype, attn_implementation="sdpa"
    )
    return SimpleNamespace(tokenizer=tokenizer, model=model, processor=processor, context=context)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def llava_golden(golden: Path) -> Path:
    return golden / "llava"


@pytest.fixture(scope="session")
def video_checkpoint(llava_golden: Path) -> SimpleNamespace:
    return _loaded(llava_golden / "ckpt-video")


@pytest.fixture(scope="session")
def ov_checkpoint(llava_golden: Path) -> SimpleNamespace:
    return _loaded(llava_golden / "ckpt-ov")


@pytest.fixture(scope="session")
def bf16_checkpoint(llava_golden: Path) -> SimpleNamespace:
    return _loaded(llava_golden / "ckpt-video", "bfloat16")


@pytest.fixture(scope="session")
def video_frames(llava_golden: Path, video_checkpoint: SimpleNamespace) -> torch.Tensor:
    """Pixel values (64, 3, 98, 98) of the golden frames."""
    frames = load_file(llava_golden / "video_inputs.safetensors")["frames"].numpy()
    return video_checkpoint.processor.preprocess(frames, return_tensors="pt")["pixel_values"]


@pytest.fixture
def settings():
    return overridden


@pytest.fixture(scope="session")
def video_cases(llava_golden: Path) -> dict:
    return json.loads((llava_golden / "video_cases.json").read_text())


@pytest.fixture(scope="session")
def image_cases(llava_golden: Path) -> dict:
    return json.loads((llava_golden / "image_cases.json").read_text())


@pytest.fixture
def copied(llava_golden, tmp_path):
    """Copies a golden checkpoint, with changed settings and weights, to a folder that can be written."""

    def copy(name="ckpt-video", weights=None, without=(), **settings):
        folder = tmp_path / name
        shutil.copytree(llava_golden / name, folder)
        for file in [folder, *folder.iterdir()]:
            file.chmod(file.stat().st_mode | stat.S_IWUSR)
        path = folder / "config.json"
        config = {**json.loads(path.read_text()), **settings}
        path.write_text(json.dumps({key: value for key, value in config.items() if key not in without}))
        if weights is not None:
            tensors = weights(load_file(folder / "model.safetensors"))
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return copy
