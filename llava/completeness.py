"""Checks that a video file is complete, by its structure and by the times of its packets.

Sources: ISO/IEC 14496-12, 4.2 (boxes) and 8.8 (fragments); RFC 8794 and RFC 9559 (EBML and Matroska).
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import BinaryIO

import av
from av.container import InputContainer

from llava.video_opening import VideoReadError

_EBML, _SEGMENT, _CLUSTER = b"\x1aE\xdf\xa3", b"\x18S\x80g", b"\x1fC\xb6u"
_LONGEST_SILENT_TAIL = 0.25  # s by which an intact file may end before the duration that it declares
_LONGEST_UNSURE_TAIL = 1.0  # the same for formats whose durations are often rounded or estimated


def check_structure(path: str) -> None:
    """Check that the parts of the file follow each other and do not exceed the file.

    Raises:
        VideoReadError: If the file ends within a part with pictures or sound, or has a hole.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(12)
        file.seek(0)
        if start[4:8] in (b"ftyp", b"moov", b"styp", b"mdat", b"wide", b"free", b"skip"):
            ends = [end for kind, end in _boxes(file, size) if kind in (b"mdat", b"moof", b"moov")]
        elif start[:4] == _EBML:
            ends = [_check_elements(path, file)]
        else:
            ends = []
    missing = max(ends, default=0) - size
    if missing > 0:
        raise VideoReadError(path, f"truncated: the last {missing} bytes are missing")


def check_complete(
    path: str,
    container: InputContainer,
    stream: av.VideoStream,
    sizes: Sequence[int],
    ends: Mapping[int, float],
) -> None:
    """Check that the packets fill the duration that the file declares, and that none is empty.

    Args:
        path: The file.
        container: The open file.
        stream: The stream that is shown.
        sizes: Sizes of its packets, in bytes.
        ends: End of the last packet of each stream, in seconds, by the index of the stream.

    Raises:
        VideoReadError: If the end of the file or some of its pictures are missing.
    """
    formats = container.format.name.split(",")
    if "mov" in formats and (empty := sum(not size for size in sizes)):
        raise VideoReadError(path, f"truncated: {empty} of {len(sizes)} frames hold no data")
    if "mov" in formats:
        _check_fragments(path)
    limit = _LONGEST_SILENT_TAIL if {"mov", "matroska"} & set(formats) else _LONGEST_UNSURE_TAIL
    frame = 2 / float(stream.average_rate) if stream.average_rate else 0.0
    for missing, what in _missing_tails(container, stream, ends):
        if missing > max(limit, min(frame, 2.0)):
            raise VideoReadError(path, f"truncated: the last {missing:.1f} s {what} are missing")


def _missing_tails(
    container: InputContainer, stream: av.VideoStream, ends: Mapping[int, float]
) -> Iterator[tuple[float, str]]:
    """Yield the seconds from the end of the packets to the declared end, for the stream and for all streams."""
    own = ends.get(stream.index)
    if own is None:
        return
    start = (container.start_time or 0) / av.time_base
    declared = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # Matroska's tag
    if declared is not None:
        hours, minutes, seconds = declared.groups()
        yield int(hours) * 3600 + int(minutes) * 60 + float(seconds) - own, "of video"
    elif stream.duration is not None and stream.time_base is not None:
        first = float((stream.start_time or 0) * stream.time_base)
        yield first + float(stream.duration * stream.time_base) - own, "of video"
    if container.duration is not None:
        last = max(ends.values())
        begins = 0.0 if "matroska" in container.format.name else start  # Matroska counts from zero
        yield begins + container.duration / av.time_base - last, ""


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Yield the kind and the end of every top-level box of an MP4 file."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        elif length == 0:  # up to the end of the file
            length = size - at
        if length < 8:
            return
        at += length
        yield header[4:8], at


def _check_fragments(path: str) -> None:
    """Check that no fragment of an MP4 file is missing in the middle or at the end.

    Fragments are numbered. FFmpeg writes an index after the last one (mfra), unless it writes others (sidx); other
    programs may omit it.

    Raises:
        VideoReadError: If a number or the index is missing.
    """
    size = os.path.getsize(path)
    kinds, numbers, written_by_ffmpeg, start = set(), [], False, 0
    with open(path, "rb") as file:
        for kind, end in _boxes(file, size):
            kinds.add(kind)
            file.seek(start)
            if kind == b"moof":
                head = file.read(24)  # of moof, of mfhd, version and flags, number
                numbers += [int.from_bytes(head[20:24], "big")] if head[12:16] == b"mfhd" else []
            elif kind == b"moov":
                written_by_ffmpeg = b"Lavf" in file.read(min(end - start, 1 << 24))
            start = end
    steps = [after - before for before, after in pairwise(numbers)]
    if steps and max(steps) > min(steps) > 0:
        raise VideoReadError(
            path, f"truncated: a fragment after fragment {numbers[steps.index(max(steps))]} is missing"
        )
    if written_by_ffmpeg and numbers and not kinds & {b"mfra", b"sidx"}:
        raise VideoReadError(path, "truncated: the index at the end of a fragmented file is missing")


def _check_elements(path: str, file: BinaryIO) -> int:
    """Walk through the elements of a Matroska file, down to every block.

    Returns:
        End of the segment in bytes; 0 if the file does not declare it.

    Raises:
        VideoReadError: If there are zeros in place of an element, as in an incomplete download.
    """
    at, segment_end = 0, 0
    while header := os.pread(file.fileno(), 12, at):
        if header[0] < 16:  # identifiers have at most four bytes, and the first says how many
            raise VideoReadError(path, f"truncated: a hole at byte {at}")
        id_length = 9 - header[0].bit_length()
        size_field = header[id_length : id_length + 8]
        size_length = 9 - size_field[0].bit_length() if size_field else 9
        if size_length > len(size_field):  # cut off, or not a known element
            return segment_end
        longest = (1 << 7 * size_length) - 1
        number = int.from_bytes(size_field[:size_length], "big") & longest
        kind, at = header[:id_length], at + id_length + size_length
        if kind == _SEGMENT and number != longest:
            segment_end = at + number
        if kind not in (_SEGMENT, _CLUSTER):  # what is inside these two follows next
            at += number
        if at >= segment_end > 0:  # what follows the segment is not part of the video
            return segment_end
    return segment_end
