"""A cache for what consecutive questions share."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from llava.video import VideoReadError

Made = TypeVar("Made")


class LastMade(Generic[Made]):
    """A cache for the last question's visuals, which consecutive questions about one video share.

    It also remembers that a video could not be read.
    """

    def __init__(self) -> None:
        self._key: Hashable = None
        self._made: Made | VideoReadError | None = None

    def get(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return the entry for `key`; call `make` if the last entry had another key, or if the key is None.

        Raises:
            VideoReadError: If `make` raises it, now or for the last question.
        """
        if key is None or key != self._key or self._made is None:
            self.forget()  # frees the last video before the next one is encoded
            try:
                self._made = make()
            except VideoReadError as error:
                self._made = error
            self._key = key
        if isinstance(self._made, VideoReadError):
            raise self._made
        return self._made

    def forget(self) -> None:
        """Free the entry."""
        self._made = None
