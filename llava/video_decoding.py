"""Decoding of chosen frames of a video file with PyAV, and with decord if its frames are the same.

PyAV decodes each group of pictures from its key frame to the last chosen frame, and skips frames on which none of these
depend. If the packets do not identify the frames, or prove wrong, it decodes from the start. PyAV reports signs of
damage, and decord does not; so PyAV reads every video, and decord's frames replace its own if they are the same up to
rounding.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import av
import numpy as np
from numpy.typing import NDArray

from llava.decoded_frames import DecodedFrames
from llava.decoding_from_keys import NotAsListed, read_from_keys
from llava.frame_resizing import FrameResizing
from llava.video_opening import DECODER_THREADS, VideoReadError, open_video, printable
from llava.video_packets import PacketList

logger = logging.getLogger(__name__)

BACKENDS = ("pyav", "decord")

_FRAMES_PER_BATCH = 8  # read by decord before they are resized
_LARGEST_ROUNDING = 3  # levels of 255 by which the two readers' colours may differ

Choose = Callable[[PacketList], Sequence[int]]
"""Chooses ascending indices of frames, which may repeat."""


def read_frames(
    path: str, packets: PacketList, choose: Choose, backend: str, resizing: FrameResizing | None = None
) -> tuple[PacketList, list[int], DecodedFrames]:
    """Decode the chosen frames of a file, and resize each before decoding more.

    Args:
        path: The file.
        packets: Its frames according to its packets.
        choose: Chooses the frames; it is called again if the decoder returns other frames than `packets` lists.
        backend: "pyav" or "decord".
        resizing: Resizing of frames; None keeps their size.

    Returns:
        The frames of the file, the chosen indices, and the chosen frames by index.

    Raises:
        VideoReadError: If no frame can be decoded.
        av.FFmpegError: If the file cannot be read.
    """
    indices = list(choose(packets))
    decoded = None
    if packets.ticks:
        try:
            decoded = read_from_keys(path, packets, indices, resizing)
        except NotAsListed:
            logger.info("%s is decoded from its start: its packets do not identify its frames", printable(path))
    if decoded is None:
        packets, indices, decoded = _read_from_start(path, packets, choose, resizing)
    if backend == "decord" and not decoded.num_damaged:
        _take_from_decord(path, indices, decoded)
    return packets, indices, decoded


def _read_from_start(
    path: str, packets: PacketList, choose: Choose, resizing: FrameResizing | None
) -> tuple[PacketList, list[int], DecodedFrames]:
    """Decode the whole file for its frames and the chosen ones, once more if the packets had listed other frames.

    Raises:
        VideoReadError: If no frame can be decoded.
        av.FFmpegError: If the file cannot be read.
    """
    indices = list(choose(packets))
    ticks, decoded = _decode_all(path, indices, resizing)
    shown = _as_decoded(path, packets, ticks)
    indices = list(choose(shown))
    if not decoded.pixels.keys() >= set(indices):
        ticks, decoded = _decode_all(path, indices, resizing)
    if packets.ticks:  # the packets promised every frame
        decoded.num_damaged += max(len(packets.times) - len(ticks), 0)
    return shown, indices, decoded


def _decode_all(
    path: str, indices: Sequence[int], resizing: FrameResizing | None, num_threads: int = DECODER_THREADS
) -> tuple[list[int | None], DecodedFrames]:
    """Decode the times of all frames, in the stream's time base, and the frames at `indices`.

    Packets that the decoder refuses before the first frame are not a sign of damage: they depend on packets that were
    cut off.
    """
    decoded, wanted = DecodedFrames(resizing), set(indices)
    ticks: list[int | None] = []
    with open_video(path, num_threads) as (container, stream):
        for packet in container.demux(stream):
            is_end = not packet.size
            for frame in decoded.take_in(stream, None if is_end else packet, is_expected=bool(ticks)):
                if len(ticks) in wanted:
                    decoded.keep(len(ticks), frame)
                ticks.append(frame.dts if frame.pts is None else frame.pts)
            if is_end:
                break
    if decoded.num_refused and num_threads > 1:  # PyAV drops frames that other threads gave together with an error
        return _decode_all(path, indices, resizing, num_threads=1)
    if not ticks:
        raise VideoReadError(path, "no frame can be decoded")
    return ticks, decoded


def _as_decoded(path: str, packets: PacketList, ticks: Sequence[int | None]) -> PacketList:
    """List the frames of a file by the results of decoding all of it."""
    with open_video(path) as (container, stream):
        start = (container.start_time or 0) / av.time_base
        base = float(stream.time_base or 0)
    known = [tick * base - start for tick in ticks if tick is not None]
    if len(known) == len(ticks) and all(before < after for before, after in pairwise(known)):
        times = known
    elif len(ticks) == len(packets.times):
        return packets
    else:
        step = (packets.duration - packets.times[0]) / len(packets.times)
        times = [packets.times[0] + index * step for index in range(len(ticks))]
    duration = times[-1] + packets.duration - packets.times[-1]
    return replace(packets, times=times, duration=duration)


def _take_from_decord(path: str, indices: Sequence[int], decoded: DecodedFrames) -> None:
    """Replace frames by those of decord, if they are the same up to rounding."""
    import decord  # noqa: PLC0415 - loads an FFmpeg of its own, which users of PyAV alone need not

    wanted = sorted(set(indices))
    taken: dict[int, NDArray[np.uint8]] = {}
    try:
        reader = decord.VideoReader(os.path.abspath(path), ctx=decord.cpu(0), num_threads=1)
        if len(reader) <= wanted[-1]:
            raise IndexError(f"it counts {len(reader)} frames")
        for start in range(0, len(wanted), _FRAMES_PER_BATCH):
            batch = wanted[start : start + _FRAMES_PER_BATCH]
            for index, frame in zip(batch, reader.get_batch(batch).asnumpy(), strict=True):
                pixels = frame if decoded.resizing is None else decoded.resizing(frame)
                if not _are_same(pixels, decoded.pixels[index]):
                    raise IndexError(f"its frame {index} is another one")
                taken[index] = pixels
    except (decord.DECORDError, IndexError, UnicodeEncodeError) as error:
        reason = str(error).splitlines()[0]
        logger.info("decord cannot read %s, so PyAV reads it: %s", printable(path), reason)
        return
    decoded.pixels.update(taken)


def _are_same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    return one.shape == other.shape and int(np.abs(one.astype(np.int16) - other).max()) <= _LARGEST_ROUNDING
