"""The layout of an NVILA checkpoint on disk: a configuration, and three folders with a model each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.model.checkpoint_files import read_json

ARCHITECTURES = ("LlavaLlamaModel", "VILAForCausalLM")
PARTS = ("llm", "vision_tower", "mm_projector")


def nvila_folder(folder: Path) -> Path | None:
    """Return the folder of an NVILA checkpoint: `folder`, or `model` inside it; None if it is of another kind."""
    return next((place for place in (folder / "model", folder) if _is_nvila(place)), None)


def is_nvila(root: Mapping[str, Any]) -> bool:
    """Tell whether the settings of a config.json are those of an NVILA checkpoint."""
    is_ours = any(name in ARCHITECTURES for name in root.get("architectures") or ())
    return is_ours and all(f"{part}_cfg" in root for part in PARTS)


def part_folder(folder: Path, root: dict[str, Any], part: str) -> Path:
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


def _is_nvila(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        return False
    return is_nvila(read_json(folder / "config.json"))
