"""Frames that a file of the user's lists for each video, such as those that hold the answer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from stgridpool.evidence import Need
from stgridpool.options import json_object, text


@dataclass(frozen=True)
class ListedFrames(Need):
    """Which frames of the video the file lists, 1 for those and 0 for the others; (T,) float32.

    The file holds a JSON object with a list of frames for each video, under the name of its file or folder without the
    folders around it: ``{"v1.mp4": [0, 12, 13]}``. Frames are counted from 0 among those that the model gets, so a list
    holds for one number of frames.

    Attributes:
        file: Path of the file.
    """

    per_token: ClassVar[bool] = False
    from_file: ClassVar[bool] = True

    file: str

    def __post_init__(self) -> None:
        text("file", self.file)

    def marks(self, video: str, num_frames: int) -> Tensor:
        """Look a video up.

        Args:
            video: Name of the video's file.
            num_frames: T.

        Returns:
            (T,) float32 on the CPU.

        Raises:
            ValueError: If the file cannot be read or is not JSON of this form, or it lists no frame of the video, or
                one that the video does not have.
        """
        listed = json_object(self.file, self._content()).get(video)
        if listed is None:
            raise ValueError(f"{self.file} lists no frames of {video!r}; add them under this name")
        if not isinstance(listed, list) or not listed or not all(_is_frame(frame, num_frames) for frame in listed):
            raise ValueError(
                f"{self.file} must list frames of {video!r} by whole numbers from 0 to {num_frames - 1}, at least one, "
                f"got {listed!r}"
            )
        return torch.zeros(num_frames).index_fill(0, torch.tensor(listed), 1)

    def digest(self) -> str:
        """Return the SHA-256 of the file.

        Raises:
            ValueError: If it cannot be read.
        """
        return hashlib.sha256(self._content().encode()).hexdigest()

    def _content(self) -> str:
        try:
            return Path(self.file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the list of frames {self.file!r} cannot be read: {error}") from error


def _is_frame(value: Any, num_frames: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < num_frames
