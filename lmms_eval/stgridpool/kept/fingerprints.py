"""Fingerprints of what a run used: SHA-256 of weights, processor, tokenizer and task files."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, Self

import yaml
from loguru import logger

from llava.model.geometry import holds_tower
from lmms_eval_stgridpool.kept.file_digest import digests_folder, file_digest
from lmms_eval_stgridpool.run.arguments import Arguments
from stgridpool.checkpoint_files import is_hub_name, local_folder, stored_tensors
from stgridpool.model import VideoModel

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
"""Files that hold weights; those of the second kind are read only if there are none of the first."""
SETTINGS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
"""Files of a checkpoint that hold its configuration, its processor and its tokenizer."""

Digests = dict[str, str | None]
"""SHA-256 by name of the file; None for one that could not be read."""


class CheckpointFingerprints:
    """Digests of the files of checkpoints, which a thread computes during the run.

    Nothing is read before `start`: commands that write no record of a run need no digests.

    Args:
        checkpoints: Folders or hub names, by what they are for.
        folder: Where digests are kept from run to run.
    """

    def __init__(self, checkpoints: Mapping[str, str], folder: Path | None = None) -> None:
        self._digests: dict[str, dict[str, Digests]] = {}
        arguments = (dict(checkpoints), folder or digests_folder())
        self._thread = Thread(target=self._read, args=arguments, name="fingerprints", daemon=True)

    @classmethod
    def of(cls, arguments: Arguments, model: VideoModel) -> Self:
        """Name the files that a model was loaded from: its checkpoint, and parts that come from elsewhere."""
        tower = model.facts().get("vision_tower")
        parts = {name: getattr(arguments, name, None) for name in ("pretrained", "pool_head", "text_tower")}
        parts["vision_tower"] = tower_from_outside(arguments.pretrained, tower) if tower else None
        return cls({name: part for name, part in parts.items() if part is not None})

    def start(self) -> None:
        """Start the thread, unless it has been started."""
        if self._thread.ident is None:
            self._thread.start()

    def result(self) -> dict[str, dict[str, Digests]]:
        """Wait for the thread, and return the digests of "weights" and of "settings" for each checkpoint."""
        self.start()
        if self._thread.is_alive():
            logger.info("Waiting for the SHA-256 of the checkpoint's files, which will be remembered")
        self._thread.join()
        return self._digests

    def _read(self, checkpoints: Mapping[str, str], folder: Path) -> None:
        for purpose, name in checkpoints.items():
            place = _folder(name)
            if place is not None:
                kinds = {"weights": weight_files(place), "settings": _files(place, SETTINGS)}
                self._digests[purpose] = {kind: _digests(place, files, folder) for kind, files in kinds.items()}


def tower_from_outside(checkpoint: str, tower: str) -> str | None:
    """Return the vision tower that a checkpoint names if its weights come from there, or else None.

    Args:
        checkpoint: Folder or hub name of a checkpoint in LLaVA-NeXT's format.
        tower: Folder or hub name of the tower.
    """
    folder = _folder(checkpoint)
    try:
        return tower if folder is not None and not holds_tower(stored_tensors(folder)) else None
    except ValueError:  # a checkpoint in parts has its tower
        return None


def _folder(checkpoint: str) -> Path | None:
    """Return where a checkpoint's files are; None for a model that was made and not loaded."""
    return local_folder(checkpoint) if Path(checkpoint).is_dir() or is_hub_name(checkpoint) else None


def task_fingerprints(names: Iterable[str], index: Mapping[str, Mapping[str, Any]]) -> dict[str, Digests]:
    """Compute the digests of each task's YAML, and of the files that it includes.

    Args:
        names: Names of tasks.
        index: lmms-eval's index of tasks; those that no YAML file defines have no fingerprint.
    """
    paths = {name: Path(index[name]["yaml_path"]) for name in names if isinstance(_path(index.get(name)), str)}
    return {name: _digests(path.parent, task_files(path), digests_folder()) for name, path in paths.items()}


def task_files(path: Path) -> list[Path]:
    """Return a task's YAML and the files that it includes, directly or not.

    Source: lmms_eval.utils.load_yaml_config, which looks for them where the process runs, then beside the file.
    """
    included = _shallow(path).get("include") or []
    named = [included] if isinstance(included, str) else included
    places = [Path(name) if Path(name).is_file() else path.parent / name for name in named]
    return [path, *(file for place in places for file in task_files(place))]


def _path(entry: Mapping[str, Any] | None) -> object:
    return None if entry is None else entry["yaml_path"]


def _shallow(path: Path) -> dict[str, Any]:
    """Read a YAML file as texts, whatever its tags would make of them."""
    content = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    return content if isinstance(content, dict) else {}


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of a checkpoint: in its folder, or in the folders of its parts."""
    return next((files for pattern in WEIGHTS if (files := _files(folder, (pattern,)))), [])


def _files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return files of a checkpoint: those in its folder, and those of its parts if it has no weights of its own.

    The parts of some NVILA checkpoints lie in a folder called model.
    """
    holders = [folder]
    if not any(file for pattern in WEIGHTS for file in folder.glob(pattern)):
        places = [place for place in (folder, folder / "model") if place.is_dir()]
        parts = [part for place in places for part in place.iterdir() if part.is_dir()]
        holders += [part for part in parts if not part.name.startswith(".")]
    return sorted(file for holder in holders for pattern in patterns for file in holder.glob(pattern))


def _digests(folder: Path, files: Iterable[Path], cache: Path) -> Digests:
    found: Digests = {}
    for file in files:
        name = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.name
        try:
            found[name] = file_digest(file, cache)
        except OSError as error:
            logger.warning(f"{file} has no fingerprint in the record of this run: {error}")
            found[name] = None
    return found
