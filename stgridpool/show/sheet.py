"""The contact sheet: traces side by side in one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stgridpool.show.colours import BACKGROUND, FAINT, TEXT, scaled
from stgridpool.show.drawing import Drawing
from stgridpool.show.tiles import Pixels, Size, heat_tile, patches_tile, tokens_tile
from stgridpool.show.trace import Trace

_MARGIN, _GAP, _HEADER = 24, 6, 46  # pixels
_LABELS = 96  # pixels, the column of words
_NARROWEST = 16  # pixels of a frame


def contact_sheet(
    frames: NDArray[np.uint8],
    traces: Sequence[Trace],
    times: Sequence[float] | None = None,
    heat_maps: bool = False,
    most_frames: int = 10,
    width: int = 1600,
) -> Image.Image:
    """Draw traces side by side: for each method its patches and its tokens, frame by frame.

    Args:
        frames: uint8 RGB (T, h, w, 3), a frame for each frame of the patches.
        traces: At least one, of the same video.
        times: Time of each frame, in seconds; None if not known.
        heat_maps: Whether to draw the heat maps of every trace, too.
        most_frames: Of more frames, as many are taken at even distances, at least 1.
        width: Of the picture, in pixels.

    Raises:
        ValueError: If the traces are of different videos, the frames are not theirs, or the width has no room for them.
    """
    check_same_video(frames, traces)
    count = min(most_frames, len(frames))
    chosen = np.linspace(0, len(frames) - 1, count).round().astype(int).tolist()
    tile_width = (width - 2 * _MARGIN - _LABELS - _GAP * (count - 1)) // count
    if tile_width < _NARROWEST:
        most = (width - 2 * _MARGIN - _LABELS + _GAP) // (_NARROWEST + _GAP)
        raise ValueError(f"a picture {width} pixels wide has room for {most} frames, got {count}: show fewer")
    size = max(round(tile_width * frames.shape[1] / frames.shape[2]), 1), tile_width
    parts = [_words_above(chosen, times, size, width)]
    for trace in traces:
        parts += _rows(frames, chosen, trace, size, width, heat_maps)
    height = sum(part.height for part in parts) + _MARGIN
    sheet, top = Image.new("RGB", (width, height), BACKGROUND), 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def check_same_video(frames: NDArray[np.uint8], traces: Sequence[Trace]) -> None:
    """Check that traces are of the same video, and frames are those of it.

    Raises:
        ValueError: If they are not.
    """
    shapes = {trace.shape for trace in traces}
    if len(shapes) != 1:
        raise ValueError(f"pictures show methods on the same patches of one video, got traces of {sorted(shapes)}")
    if frames.ndim != 4 or frames.dtype != np.uint8 or frames.shape[3] != 3 or len(frames) != traces[0].shape[0]:
        raise ValueError(
            f"frames must be uint8 RGB (T, h, w, 3), one for each of the {traces[0].shape[0]} frames of the patches, "
            f"got {frames.dtype} {frames.shape}"
        )


def summary(trace: Trace, drawing: Drawing) -> str:
    """Say in a line how many tokens are left, of how many patches, and where."""
    lost = float((drawing.owner < 0).mean())
    share = f"{lost:.0%}" if lost >= 0.005 else "less than 1%"
    where = "" if len(trace.stages) == 1 else f", {trace.stages[-1].label}"
    return f"{len(drawing)} tokens of {len(drawing.owner)} patches{where}; " + (
        f"{share} of the patches are lost" if lost else "no patch is lost"
    )


def _rows(
    frames: NDArray[np.uint8], chosen: Sequence[int], trace: Trace, size: Size, width: int, heat_maps: bool
) -> list[Image.Image]:
    drawing = Drawing.of(trace.stages[-1], trace.shape)
    patches = [patches_tile(frames[one], one, drawing, trace.shape, size) for one in chosen]
    tokens = [tokens_tile(frames, one, drawing, size) for one in chosen]
    rows = [_header(trace.name, summary(trace, drawing), width), _row("patches", patches, width)]
    rows.append(_row("tokens", tokens, width))
    for heat in trace.heat_maps if heat_maps else ():
        values = scaled(heat.values.numpy())
        tiles = [heat_tile(frames[one], one, values, trace.shape, size) for one in chosen]
        rows.append(_row(heat.label, tiles, width))
    return rows


def _words_above(chosen: Sequence[int], times: Sequence[float] | None, size: Size, width: int) -> Image.Image:
    """Draw the number and the time of every frame."""
    part = Image.new("RGB", (width, _MARGIN + 12), BACKGROUND)
    draw = ImageDraw.Draw(part)
    for place, number in enumerate(chosen):
        words = f"frame {number}" if times is None else f"{times[number]:.1f} s"
        left = _MARGIN + _LABELS + place * (size[1] + _GAP)
        draw.text((left + size[1] / 2, part.height - 2), words, FAINT, _font(15), anchor="ms")
    return part


def _header(name: str, words: str, width: int) -> Image.Image:
    part = Image.new("RGB", (width, _HEADER), BACKGROUND)
    draw = ImageDraw.Draw(part)
    draw.text((_MARGIN, _HEADER - 12), name, TEXT, _font(24), anchor="ls")
    after = _MARGIN + draw.textlength(name, _font(24)) + 16
    draw.text((after, _HEADER - 12), words, FAINT, _font(17), anchor="ls")
    return part


def _row(label: str, tiles: Sequence[Pixels], width: int) -> Image.Image:
    height = tiles[0].shape[0]
    part = Image.new("RGB", (width, height + _GAP), BACKGROUND)
    draw = ImageDraw.Draw(part)
    for number, line in enumerate(_wrapped(label, draw)):
        draw.text((_MARGIN, 4 + 18 * number), line, FAINT, _font(15))
    for place, tile in enumerate(tiles):
        part.paste(Image.fromarray(tile), (_MARGIN + _LABELS + place * (tile.shape[1] + _GAP), 0))
    return part


def _wrapped(text: str, draw: ImageDraw.ImageDraw) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, _font(15)) <= _LABELS - 8 or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
