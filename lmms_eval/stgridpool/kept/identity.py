"""What answers and features depend on, as digests: another file, checkpoint or code is another digest."""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

import llava
import lmms_eval_stgridpool
import stgridpool
from lmms_eval_stgridpool.run.versions import package_version

CODE = ("stgridpool", "transformers", "torch")
"""Packages whose versions answers depend on."""


def answer_key(facts: Mapping[str, Any]) -> str:
    """A digest of everything that something depends on.

    Args:
        facts: Task, document, prompt, generation arguments, checkpoint, compressor, identity of the videos, ...; JSON
            values, or objects whose text says what they are.
    """
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_identity(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What tells a file from another one of its name: path, size in bytes and time of the last change in ns."""
    try:
        status = os.stat(path)
    except OSError:
        return {"path": os.fspath(path)}
    return {"path": os.fspath(path), "size": status.st_size, "changed_ns": status.st_mtime_ns}


def video_identity(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What tells a video from another one of its name: `file_identity` of the file, or of the pictures in a folder."""
    video = Path(path)
    return [file_identity(file) for file in (sorted(video.glob("*")) if video.is_dir() else [video])]


def visual_identity(visual: Any) -> Any:
    """What tells something that a question shows from another: a digest of a picture, `video_identity` of a path."""
    if isinstance(visual, Image.Image):
        digest = hashlib.sha256(visual.tobytes())
        digest.update(repr(visual.getpalette()).encode())
        return {"mode": visual.mode, "size": visual.size, "pixels": digest.hexdigest()}
    return video_identity(visual) if isinstance(visual, str | os.PathLike) else repr(visual)


def checkpoint_version(folder_or_name: str, revision: str | None) -> str | None:
    """What tells a checkpoint from another one of its name: a digest of its files, or the commit on the hub.

    Every file in the folder counts, hidden ones apart: weights, settings, and the tokenizer in whatever format.

    Args:
        folder_or_name: The checkpoint as the user names it.
        revision: Its commit on the hub, if that is where it was loaded from.
    """
    folder = Path(folder_or_name)
    if not folder.is_dir():
        return revision
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    return answer_key({"files": [file_identity(file) for file in files]})


def source_digest(*sources: Path) -> str:
    """A digest of Python files: those named, and all in the folders named, wherever these lie."""
    digest = hashlib.sha256()
    for source in sources:
        for file in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            content = file.read_bytes()
            digest.update(f"{file.relative_to(source)} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


@cache
def code_version(*more: Path) -> dict[str, str | None]:
    """What answers are computed with: versions of packages, and the commit and a digest of this project's own code.

    The digest tells apart what has no commit, or more than one state of it: wheels, and trees with changes.

    Args:
        more: Other code that answers depend on: files and folders.
    """
    sources = [*(Path(package.__path__[0]) for package in (stgridpool, llava, lmms_eval_stgridpool)), *more]
    return {
        **{name: package_version(name) for name in CODE},
        "commit": git_commit(Path(__file__)),
        "source": source_digest(*sources),
    }


def git_commit(file: Path) -> str | None:
    """The commit of the repository that tracks `file`, with "-dirty" if tracked files differ; None outside of one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)  # a virtual environment may lie in another project's repository
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None
