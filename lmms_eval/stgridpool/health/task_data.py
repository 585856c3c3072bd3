"""The data of a task: its table, and its videos."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from datasets.exceptions import DatasetNotFoundError
from tenacity import RetryError

from llava.video import VideoReadError
from llava.video_process import VideoReader
from lmms_eval_stgridpool.health.finding import OK, PROBLEM, WARNING, Finding
from lmms_eval_stgridpool.health.weights import Progress
from lmms_eval_stgridpool.questions.task_videos import videos_of_tasks
from lmms_eval_stgridpool.run.arguments import Arguments
from lmms_eval_stgridpool.run.offline_tasks import task_manager
from lmms_eval_stgridpool.run.table_tasks import with_tables
from lmms_eval_stgridpool.run.task_checks import check_table
from lmms_eval_stgridpool.run.task_files import find_tasks
from lmms_eval_stgridpool.run.too_many import are_too_many

TIMEOUT_S = 120.0
SHOWN = 5
"""Maximum number of videos that a finding names."""


def check_task(name: str, include: Sequence[Path], progress: Progress | None) -> Iterator[Finding]:
    """Check the data of a task on this disk.

    Args:
        name: Name of the task, or path of a table.
        include: Folders of further task files.
        progress: See `Progress`; None does not open the videos.
    """
    with TemporaryDirectory() as folder:  # for the task file of a table
        yield from _check_task(name, include, progress, Path(folder))


def _check_task(name: str, include: Sequence[Path], progress: Progress | None, folder: Path) -> Iterator[Finding]:
    try:
        [name], tables = with_tables(name, folder)
        manager = task_manager([name], [*tables, *include])
    except (ValueError, FileNotFoundError) as error:
        yield Finding("task", PROBLEM, str(error), "name a task that exists")
        return
    try:
        for task in find_tasks([name], [*tables, *include]):
            check_table(task)
    except ValueError as error:
        text, _, repair = str(error).rpartition(": ")
        yield Finding("task", PROBLEM, text, repair)
        return
    try:
        shown = videos_of_tasks([name], manager)
    except (RetryError, DatasetNotFoundError, ConnectionError, KeyError, ValueError, OSError) as error:
        cause = error.last_attempt.exception() if isinstance(error, RetryError) else error
        text = f"the table of {name} cannot be read: {type(cause).__name__}: {cause}"
        yield Finding(
            "task", PROBLEM, " ".join(text.split()), "download it again; compare its columns with the task file"
        )
        return
    yield Finding("task", OK, f"{name}: {len(shown)} questions about {len(set(shown))} videos")
    yield from check_videos(list(dict.fromkeys(shown)), progress)


def check_videos(videos: Sequence[Path], progress: Progress | None) -> Iterator[Finding]:
    """Check that videos are there, that each can be read, and that none is there twice under two names.

    Args:
        videos: Paths, each once.
        progress: See `Progress`; None does not open them.
    """
    missing = [path for path in videos if not path.exists()]
    there = [path for path in videos if path.exists()]
    if missing:
        state = _state(missing, videos)
        text = f"{len(missing)} of {len(videos)} are missing: {_some(missing)}"
        yield Finding("videos", state, text, f"put them there, or unpack the archives in {missing[0].parent}")
    if progress is not None and there:
        unreadable = unreadable_videos(there, progress)
        state = _state(unreadable, videos)
        for path, reason in unreadable[:SHOWN]:
            yield Finding("videos", state, f"{path}: {reason}", "download it again; its questions stay unanswered")
        if len(unreadable) > SHOWN:
            yield Finding("videos", state, f"{len(unreadable)} in all cannot be read", "download them again")
    for same in duplicates(there)[:SHOWN]:
        yield Finding("videos", WARNING, f"the same file: {_some(same)}", "download all but one of them again")
    if there and not missing:
        yield Finding(
            "videos", OK, f"{len(there)} are there, {sum(path.stat().st_size for path in there) / 1e9:.2f} GB"
        )


def unreadable_videos(videos: Sequence[Path], progress: Progress) -> list[tuple[Path, str]]:
    """Open each video and decode one of its frames, in a process of its own; return those that fail, with reasons."""
    advance = progress("Opening videos", len(videos))
    reader, found = VideoReader(TIMEOUT_S), []
    try:
        for path in videos:
            try:
                reader.read(path, max_frames_num=1, **({} if path.is_dir() else {"sampling": "time"}))
            except VideoReadError as error:
                found.append((path, error.reason))
            advance(1)
    finally:
        reader.close()
    return found


def duplicates(files: Sequence[Path]) -> list[list[Path]]:
    """Return groups of files with the same content; only files of one size are compared."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in files:
        if path.is_file():
            by_size[path.stat().st_size].append(path)
    by_content: dict[str, list[Path]] = defaultdict(list)
    for same_size in by_size.values():
        for path in same_size if len(same_size) > 1 else ():
            with path.open("rb") as file:
                by_content[hashlib.file_digest(file, "sha256").hexdigest()].append(path)
    return [paths for paths in by_content.values() if len(paths) > 1]


def _state(failed: Sequence[object], videos: Sequence[Path]) -> str:
    """Judge missing or unreadable videos as a run with the default `max_failed` does, if each has one question."""
    return PROBLEM if are_too_many(len(failed), len(videos), Arguments.max_failed) else WARNING


def _some(paths: Sequence[Path]) -> str:
    listed = ", ".join(map(str, paths[:SHOWN]))
    return listed + (f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else "")
