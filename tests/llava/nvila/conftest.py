"""The three tiny NVILA checkpoints of the golden data, and their inputs."""

import json
import shutil
import stat
from types import SimpleNamespace

import pytest
from PIL import Image
from safetensors.torch import load_file

from llava.model.builder import load_pretrained_model

NAMES = ("video", "base", "lite")


@pytest.fixture(scope="session")
def nvila_golden(golden):
    return golden / "nvila"


@pytest.fixture(scope="session")
def load_nvila():
    """Function that loads an NVILA checkpoint, with `tokenizer`, `model` and `processor`."""

    def load(folder, **options):
        options = {"torch_dtype": "float32", "attn_implementation": "sdpa", **options}
        tokenizer, model, processor, context = load_pretrained_model(str(folder), None, None, **options)
        return SimpleNamespace(tokenizer=tokenizer, model=model.eval(), processor=processor, context=context)

    return load


@pytest.fixture(scope="session")
def checkpoints(nvila_golden, load_nvila):
    """The checkpoints by name: `video`, `base` and `lite`."""
    return {name: load_nvila(nvila_golden / f"ckpt-{name}") for name in NAMES}


@pytest.fixture(scope="session")
def inputs(nvila_golden):
    """Frames (T, h, w, 3) and images (h, w, 3), uint8, by name."""
    return {name: value.numpy() for name, value in load_file(nvila_golden / "inputs.safetensors").items()}


@pytest.fixture(scope="session")
def pixels(checkpoints, inputs):
    """Function that returns the pixels (T, 3, S, S) of frames by the name of a checkpoint and of the frames."""

    def pixels(checkpoint, frames, chosen=slice(None)):
        return checkpoints[checkpoint].processor.preprocess(inputs[frames][chosen], return_tensors="pt")["pixel_values"]

    return pixels


@pytest.fixture(scope="session")
def pictures(inputs):
    """Images by name, as PIL images."""
    return {name: Image.fromarray(value) for name, value in inputs.items() if value.ndim == 3}


@pytest.fixture
def copied(nvila_golden, tmp_path):
    """Copies a golden checkpoint with changed settings; `changes` are by the file that they change."""

    def copy(name="video", without=(), **changes):
        folder = tmp_path / f"ckpt-{name}"
        shutil.copytree(nvila_golden / f"ckpt-{name}", folder)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
        for part, settings in changes.items():
            path = folder / {"root": "config.json", "preprocessing": "vision_tower/preprocessor_config.json"}.get(
                part, f"{part}/config.json"
            )
            config = {**json.loads(path.read_text()), **settings}
            path.write_text(json.dumps({key: value for key, value in config.items() if key not in without}))
        return folder

    return copy
