"""Digests of everything that answers and features depend on: files, checkpoints and code."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

import llava
import lmms_eval_stgridpool
import stgridpool
from llava.nvila.layout import nvila_parts
from lmms_eval_stgridpool.run.versions import package_version

CODE = ("stgridpool", "transformers", "torch")
"""Packages whose versions answers depend on."""


def answer_key(facts: Mapping[str, Any]) -> str:
    """Compute a digest of facts.

    Args:
        facts: Task, document, prompt, generation arguments, checkpoint, compressor, identity of the videos, ...; JSON
            values, or objects whose `repr` describes them completely.
    """
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_identity(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Identify a file by its path, its size in bytes and the time of its last change in ns."""
    try:
        status = os.stat(path)
    except OSError:
        return {"path": os.fspath(path)}
    return {"path": os.fspath(path), "size": status.st_size, "changed_ns": status.st_mtime_ns}


def video_identity(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Identify a video by the `file_identity` of its file, or of each picture if it is a folder of pictures."""
    video = Path(path)
    return [file_identity(file) for file in (sorted(video.glob("*")) if video.is_dir() else [video])]


def visual_identity(visual: object) -> object:
    """Identify a visual: a picture by a digest of its pixels, a path by its `video_identity`."""
    if isinstance(visual, Image.Image):
        digest = hashlib.sha256(visual.tobytes())
        digest.update(repr(visual.getpalette()).encode())
        return {"mode": visual.mode, "size": visual.size, "pixels": digest.hexdigest()}
    return video_identity(visual) if isinstance(visual, str | os.PathLike) else repr(visual)


def checkpoint_version(folder_or_name: str, revision: str | None) -> str | None:
    """Identify the version of a checkpoint by a digest of its files, or by its commit on the hub.

    The digest covers every file in the folder except hidden ones: weights, settings, and the tokenizer in any format;
    also those in the folders of which an NVILA checkpoint consists.

    Args:
        folder_or_name: The checkpoint as the user named it.
        revision: Its commit on the hub, if it was loaded from there.
    """
    folder = Path(folder_or_name)
    if not folder.is_dir():
        return revision
    places = [folder, *nvila_parts(folder)]
    files = sorted(file for place in places for file in place.iterdir() if file.is_file() and file.name[0] != ".")
    return answer_key({"files": [file_identity(file) for file in files]})


def frames_digest(videos: Iterable[tuple[Path, Sequence[int]]]) -> str:
    """Compute a digest of the names of videos, without their folders, and of the indices of the frames read of each.

    It is empty if the indices of a video are unknown, as those of imported features are.
    """
    videos = list(videos)
    if not all(indices for _, indices in videos):
        return ""
    return answer_key({"frames": [[video.name, list(indices)] for video, indices in videos]})


def source_digest(*sources: Path) -> str:
    """Compute a digest of Python files and of all Python files in folders; it does not depend on where they are."""
    digest = hashlib.sha256()
    for source in sources:
        for file in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            content = file.read_bytes()
            digest.update(f"{file.relative_to(source)} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


@cache
def code_version(*more: Path) -> dict[str, str | None]:
    """Identify the code that computes answers: package versions, and the commit and a digest of this project's source.

    The digest is needed because wheels have no commit, and a working tree may differ from its commit.

    Args:
        more: Other code that answers depend on: files and folders.
    """
    sources = [*(Path(package.__path__[0]) for package in (stgridpool, llava, lmms_eval_stgridpool)), *more]
    return {
        **{name: package_version(name) for name in CODE},
        "commit": own_commit(),
        "source": source_digest(*sources),
    }


@cache
def own_commit() -> str | None:
    """Return the commit of this project when it was first asked for, see `git_commit`."""
    return git_commit(Path(__file__))


def git_commit(file: Path) -> str | None:
    """Return the commit of the repository that tracks `file`, with "-dirty" if tracked files differ, or None."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)  # a virtual environment may lie in another project's repository
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None
