"""Versions, devices, attention, video readers and disks of this machine."""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import av
import torch
from av.codec import Codec
from av.codec.codec import UnknownCodecError
from huggingface_hub.constants import HF_HUB_CACHE
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from transformers.utils.import_utils import is_flash_attn_2_available

from lmms_eval_stgridpool.health.finding import OK, PROBLEM, WARNING, Finding
from lmms_eval_stgridpool.manifest import check_llava
from lmms_eval_stgridpool.run.evaluation import unrecognised
from lmms_eval_stgridpool.run.versions import TESTED, package_version

OPTIONAL = ("decord",)
DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4")
"""Codecs of nearly all videos in benchmarks."""
LEAST_FREE_GB, USUAL_GB = 1, 20
"""Free gigabytes without which a run cannot keep its answers, and those that features and results may take."""


def check_versions(tested: Mapping[str, SpecifierSet] = TESTED) -> Iterator[Finding]:
    """Compare installed packages with tested versions."""
    for name, wanted in tested.items():
        installed, pin = package_version(name), f"pip install '{name}{wanted}'"
        if installed is None and name in OPTIONAL:
            yield Finding(name, OK, "not installed; optional")
        elif installed is None:
            yield Finding(name, PROBLEM, "not installed", pin)
        elif wanted.contains(Version(installed).public, prereleases=True):
            yield Finding(name, OK, installed)
        else:
            yield Finding(name, WARNING, f"{installed} is not tested; tested: {wanted}", f"if a run fails: {pin}")


def check_plug_in() -> Iterator[Finding]:
    """Check that lmms-eval finds our model, and that `llava` is our package."""
    names = [point.name for point in entry_points(group="lmms_eval.models")]
    if "stgridpool" in names:
        yield Finding("plug-in", OK, "lmms-eval finds the model llava_video")
    else:
        repair = "pip install --force-reinstall --no-deps stgridpool"
        yield Finding("plug-in", PROBLEM, "lmms-eval does not find the model llava_video", repair)
    try:
        check_llava()
    except ImportError as error:
        yield Finding("llava", PROBLEM, str(error), "see there")
    if missing := unrecognised():
        text = f"lacks {', '.join(missing)}, so that a failed run may end with status 0"
        yield Finding("lmms_eval", WARNING, text, f"pip install 'lmms_eval{TESTED['lmms_eval']}'")


def check_devices() -> Iterator[Finding]:
    """List the GPUs with their memory, or say that there are none, and the attention backends."""
    count = torch.cuda.device_count()
    for index in range(count):
        free, total = (size / 1e9 for size in torch.cuda.mem_get_info(index))
        name = torch.cuda.get_device_name(index)
        yield Finding(f"cuda:{index}", OK, f"{name}, {free:.0f} of {total:.0f} GB free")
    if not count:
        text = f"no GPU that torch {torch.__version__} can use: models run on {torch.get_num_threads()} CPU threads"
        repair = "with an NVIDIA GPU in the machine: check nvidia-smi, and install torch for its CUDA version"
        yield Finding("device", WARNING, text, repair)
    flash = "flash_attention_2, " if is_flash_attn_2_available() else ""
    yield Finding("attention", OK, f"{flash}sdpa, eager" + ("" if flash else "; flash-attn is not installed; optional"))


def check_readers() -> Iterator[Finding]:
    """Check that PyAV decodes the usual codecs."""
    missing = [name for name in DECODERS if not _decodes(name)]
    if missing:
        repair = f"pip install --force-reinstall 'av{TESTED['av']}'"
        yield Finding("video reader", WARNING, f"PyAV {av.__version__} cannot decode {', '.join(missing)}", repair)
    else:
        yield Finding("video reader", OK, f"PyAV {av.__version__} decodes {', '.join(DECODERS)}")


def check_disks(places: Iterable[tuple[str, Path]], least_gb: float = LEAST_FREE_GB) -> Iterator[Finding]:
    """Check that places where a run writes have space.

    Args:
        places: Name and path of each; what is missing counts as its nearest parent folder.
        least_gb: Free gigabytes below which a run would fail.
    """
    for name, path in places:
        folder = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.is_dir())
        free = shutil.disk_usage(folder).free / 1e9
        state = PROBLEM if free < least_gb else WARNING if free < USUAL_GB else OK
        repair = "" if state == OK else f"free some space there: 64 frames of features take 0.1 GB per video ({folder})"
        yield Finding(f"disk: {name}", state, f"{free:.0f} GB free in {folder}", repair)


def hub_cache() -> Path:
    """Return the folder to which checkpoints are downloaded."""
    return Path(HF_HUB_CACHE)


def _decodes(codec: str) -> bool:
    try:
        found: Any = Codec(codec, "r")
    except UnknownCodecError:
        return False
    return found.is_decoder is not False
