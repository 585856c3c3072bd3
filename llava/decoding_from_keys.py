"""Decoding of chosen frames from the key frames before them, for files whose packets identify the frames."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import av
from av.container import InputContainer

from llava.decoded_frames import DecodedFrames
from llava.frame_resizing import FrameResizing
from llava.video_opening import DECODER_THREADS, open_video
from llava.video_packets import PacketList


class NotAsListed(Exception):  # noqa: N818 - no error: the frames are read in another way
    """Signal that the decoder returns other frames than the packets list."""


def read_from_keys(
    path: str, packets: PacketList, indices: Sequence[int], resizing: FrameResizing | None
) -> DecodedFrames:
    """Decode frames from the key frames before them.

    Raises:
        NotAsListed: If an intact part of the file lacks a frame that its packets list.
    """
    wanted = sorted(set(indices))
    decoded = DecodedFrames(resizing)
    try:
        _read_groups(path, packets, wanted, decoded)
    except NotAsListed:
        if not decoded.num_refused:
            raise
    if decoded.num_refused:  # PyAV drops frames that other threads gave together with an error
        decoded = DecodedFrames(resizing)
        _read_groups(path, packets, wanted, decoded, num_threads=1)
    return decoded


def _read_groups(
    path: str, packets: PacketList, wanted: Sequence[int], decoded: DecodedFrames, num_threads: int = DECODER_THREADS
) -> None:
    with open_video(path, num_threads) as (container, stream):
        if stream.width and stream.height:
            decoded.size = (stream.width, stream.height)
        for number, group in groupby(wanted, packets.key_of):
            _read_group(container, stream, packets, number, list(group), decoded)


def _read_group(
    container: InputContainer,
    stream: av.VideoStream,
    packets: PacketList,
    number: int,
    wanted: list[int],
    decoded: DecodedFrames,
) -> None:
    """Decode the frames `wanted` from key packet `number` on.

    A frame that is lost to damage is replaced by the one before it, which a player would continue to show. If none is
    damaged, decoding starts at an earlier key, since some encoders refresh the picture gradually after it.

    Raises:
        NotAsListed: See `read_from_keys`.
    """
    for earlier in (0, 1, 2):
        if earlier > number:
            break
        signs = decoded.num_signs
        pending, previous = list(wanted), None
        for frame in _frames_from_key(container, stream, packets, number - earlier, wanted, decoded):
            while frame.pts is not None and pending and packets.ticks[pending[0]] <= frame.pts:
                is_it = packets.ticks[pending[0]] == frame.pts
                if not is_it and decoded.num_signs == signs:
                    break
                if is_it:
                    decoded.keep(pending.pop(0), frame)
                else:
                    decoded.keep_instead(pending.pop(0), frame if previous is None else previous)
            previous = frame
        if not pending:
            return
        if decoded.num_signs > signs and previous is not None:
            for index in pending:
                decoded.keep_instead(index, previous)
            return
    raise NotAsListed


def _frames_from_key(
    container: InputContainer,
    stream: av.VideoStream,
    packets: PacketList,
    number: int,
    wanted: list[int],
    decoded: DecodedFrames,
) -> Iterator[av.VideoFrame]:
    """Decode from a key packet to the last of the `wanted` frames, and skip frames on which none of them depends.

    Packets are stored in the order of decoding, so nothing after the last wanted packet is needed.
    """
    key = packets.keys[number]
    places = {packets.positions[index] for index in wanted}
    can_skip = _marks_references(stream.codec_context)
    for position, packet in _packets_from(container, stream, packets, number):
        if can_skip:
            stream.codec_context.skip_frame = "DEFAULT" if position in places else "NONREF"
        is_expected = packet.pts is None or packet.pts >= key.tick
        yield from decoded.take_in(stream, packet, key.tick, is_expected)
        if position >= max(places):
            break
    yield from decoded.take_in(stream, None, key.tick)


def _packets_from(
    container: InputContainer, stream: av.VideoStream, packets: PacketList, number: int
) -> Iterator[tuple[int, av.Packet]]:
    """Yield packets from a key packet on, with their positions in the order of storage.

    Raises:
        NotAsListed: If the packet cannot be found.
    """
    key = packets.keys[number]
    for earlier in range(number, -1, -1):
        container.seek(packets.keys[earlier].seek_tick, stream=stream)
        position = None
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if position is None:
                position = _place(packets, (packet.pts, packet.dts), number)
                if position is None:
                    break
            if position >= key.position:
                yield position, packet
            position += 1
        if position is not None:
            return
    raise NotAsListed


def _place(packets: PacketList, found: tuple[int | None, int | None], number: int) -> int | None:
    """Find the position of the packet at which a seek ended, if it is key packet `number` or stored before it."""
    for key in reversed(packets.keys[: number + 1]):
        if packets.ids[key.position][0] == found[0]:
            return key.position
    return None


def _marks_references(decoder: av.VideoCodecContext) -> bool:
    """Tell whether the codec reliably marks each frame on which another one depends.

    HEVC does if there is a single temporal sub-layer; its configuration record contains their number
    (ISO/IEC 14496-15, 8.3.2.1: byte 0 is the version, bits 5 to 3 of byte 21 are numTemporalLayers).
    """
    if decoder.name == "hevc":
        record = decoder.extradata or b""
        return len(record) > 21 and record[0] == 1 and record[21] >> 3 & 7 == 1
    return decoder.name == "h264"
