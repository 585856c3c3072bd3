"""The path of the video of a question, for data on disk."""

from pathlib import Path

from lmms_eval_stgridpool.questions.video_table import VIDEO_SUFFIXES


def local_video(folder: str, name: str) -> Path:
    """Find a video by its name.

    Args:
        folder: Folder of the videos; ``~`` is expanded, and a relative path starts at the working directory.
        name: Name of the video, with or without a suffix.

    Returns:
        The path of the video; if there is no such file, the path at which it was expected.
    """
    place = Path(folder).expanduser()
    candidates = [place / name] + [place / f"{name}{suffix}" for suffix in VIDEO_SUFFIXES]
    expected = candidates[0] if candidates[0].suffix in VIDEO_SUFFIXES else candidates[1]
    return next((path for path in candidates if path.is_file()), expected)
