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


MEMORY_PROBE = """
import sys, threading, time
from llava.model.builder import load_pretrained_model

def private_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

def load(folder):
    return load_pretrained_model(folder, None, "x", torch_dtype="float16", attn_implementation="sdpa")[1]

load(sys.argv[1])
before, peak, done = private_bytes(), 0, threading.Event()
def watch():
    global peak
    while not done.is_set():
        peak = max(peak, private_bytes())
        time.sleep(0.0005)
watcher = threading.Thread(target=watch)
watcher.start()
model = load(sys.argv[2])
done.set()
watcher.join()
weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
print((peak - before) / weights)
"""


@pytest.fixture
def memory_of_loading(run_python):
    """Function that returns the peak of private memory while a large checkpoint loads, as a multiple of its weights.

    Its files are float32 and what is loaded float16, so that every weight takes private memory. Mapped pages of the
    files can be dropped and are no copy. A small checkpoint of the same kind is loaded first.
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")

    def memory_of_loading(small, large):
        run = run_python("-c", MEMORY_PROBE, small, large)
        assert run.returncode == 0, run.stderr
        return float(run.stdout.split()[-1])

    return memory_of_loading
