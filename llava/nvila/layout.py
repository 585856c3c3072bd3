"""The layout of an NVILA checkpoint on disk: a configuration, and three folders with a model each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.frame_choice import INDEX, NEAREST
from stgridpool.checkpoint_files import read_json

ARCHITECTURES = ("LlavaLlamaModel", "VILAForCausalLM")
PARTS = ("llm", "vision_tower", "mm_projector")
DEFAULT_FRAMES = 64
"""Maximum number of frames of a video for checkpoints that do not set one."""
VIDEO, FRAMES = "video", "frames"
VIDEO_ENCODINGS = (VIDEO, FRAMES)
"""Ways of a video through the model, see `NvilaConfig`."""


def nvila_folder(folder: Path) -> Path | None:
    """Return the folder of an NVILA checkpoint: `folder`, or `model` inside it; None if it is of another kind."""
    return next((place for place in (folder / "model", folder) if _is_nvila(place)), None)


def is_nvila(root: Mapping[str, Any]) -> bool:
    """Tell whether the settings of a config.json are those of an NVILA checkpoint."""
    is_ours = any(name in ARCHITECTURES for name in root.get("architectures") or ())
    return is_ours and all(f"{part}_cfg" in root for part in PARTS)


def nvila_parts(folder: Path) -> list[Path]:
    """Return the folders besides `folder` that an NVILA checkpoint consists of; none if it is of another kind."""
    nvila = nvila_folder(folder)
    if nvila is None:
        return []
    root = read_json(nvila / "config.json")
    return [*([nvila] if nvila != folder else []), *(part_folder(nvila, root, part) for part in PARTS)]


def part_folder(folder: Path, root: Mapping[str, Any], part: str) -> Path:
    """Return the folder of one of `PARTS`.

    Args:
        folder: The checkpoint.
        root: Its configuration, which may give the path of a part in place of its settings.
        part: The part.

    Raises:
        ValueError: If the folder does not exist.
    """
    named = root[f"{part}_cfg"]
    found = folder / (Path(named).name if isinstance(named, str) and named else part)
    if not found.is_dir():
        raise ValueError(
            f"{folder} is an NVILA checkpoint and lacks the folder {found.name}: it needs {', '.join(PARTS)}; copy or "
            "download it again"
        )
    return found


def with_parts(folder: Path, root: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a checkpoint with the configurations of its parts in place of their copies or paths."""
    found = {f"{part}_cfg": read_json(part_folder(folder, root, part) / "config.json") for part in PARTS}
    return {**root, **found}


def own_settings(root: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an evaluation that a checkpoint decides, by the settings of its config.json."""
    if not is_nvila(root):
        return {"max_frames_num": DEFAULT_FRAMES, "sampling": INDEX, "conv_template": "qwen_1_5"}
    return {"max_frames_num": root.get("num_video_frames") or 8, "sampling": NEAREST, "video_encoding": VIDEO}


def _is_nvila(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        return False
    return is_nvila(read_json(folder / "config.json"))
