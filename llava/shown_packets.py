"""Packets of VP8 and VP9 whose frames are shown: encoders also store reference frames that never are.

Sources: RFC 6386, section 9.1 (VP8's frame tag); the VP9 bitstream specification, sections 6.2 (uncompressed header)
and Annex B (superframes).
"""

import av


def is_shown(codec: str, packet: av.Packet) -> bool:
    """Tell by its header whether a packet decodes to a frame that is shown; True for codecs without hidden frames."""
    if codec == "vp8":
        return bool(memoryview(packet)[0] >> 4 & 1)
    if codec == "vp9":
        return any(_vp9_frame_is_shown(first) for first in _vp9_first_bytes(memoryview(packet)))
    return True


def _vp9_frame_is_shown(first: int) -> bool:
    """Parse the byte: frame marker (2 bits), profile (2), in profile 3 a reserved bit, show_existing, type, show."""
    bits = first << 1 if first >> 4 & 3 == 3 else first
    return bool(bits >> 3 & 1 or bits >> 1 & 1)


def _vp9_first_bytes(data: memoryview) -> list[int]:
    """Read the first byte of every frame in a packet; a superframe lists the sizes of its frames at its end."""
    marker = data[-1]
    num_frames, num_bytes = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index = 2 + num_frames * num_bytes
    if marker >> 5 != 6 or len(data) < index or data[-index] != marker:
        return [data[0]]
    sizes = data[len(data) - index + 1 : -1]
    firsts, start = [], 0
    for frame in range(num_frames):
        size = int.from_bytes(sizes[frame * num_bytes : (frame + 1) * num_bytes], "little")
        if size and start < len(data):
            firsts.append(data[start])
        start += size
    return firsts
