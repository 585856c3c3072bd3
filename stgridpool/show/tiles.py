"""Tiles: one frame of a video, as its patches, as its tokens, or as a heat map; (h, w, 3) uint8 each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stgridpool.plan import Shape
from stgridpool.show.colours import NUM_GROUP_COLOURS, PANEL, group_colours, heat_colours
from stgridpool.show.drawing import Drawing

Pixels = NDArray[np.uint8]
Array = NDArray[Any]
Size = tuple[int, int]
"""(height, width) in pixels."""

_LOST, _LEAST = 0.2, 0.5  # brightness of lost patches, and of those that reach a token with hardly any weight
_TINT = 0.6  # share of a group's colour in its patches
_WIDEST_FRAME = 3  # pixels, the frame of a token of a group
_SMALLEST_CELL = 5  # pixels, below which no lines are drawn between cells


def resized(frame: Pixels, size: Size) -> Pixels:
    """Resize a frame (h, w, 3)."""
    image = Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.LANCZOS, reducing_gap=3)
    return np.asarray(image)


def patches_tile(frame: Pixels, number: int, drawing: Drawing, shape: Shape, size: Size) -> Pixels:
    """Draw the patches of a frame: the brighter, the more of it reaches a token; lost ones are dark and grey.

    Groups have the same colour in all frames, and lines separate what belongs to different tokens.

    Args:
        frame: (h, w, 3), of any size.
        number: Its number.
        drawing: The tokens.
        shape: (T, H, W) of the patches.
        size: Of the tile.
    """
    here = slice(number * shape[1] * shape[2], (number + 1) * shape[1] * shape[2])
    owner, region, reach = (part[here].reshape(shape[1:]) for part in (drawing.owner, drawing.region, drawing.reach))
    is_lost = owner < 0
    picture = resized(frame, size).astype(np.float64)
    grey = picture.mean(axis=2, keepdims=True)
    dark = _spread(is_lost, size)[..., None]
    light = _spread(np.where(is_lost, _LOST, _LEAST + (1 - _LEAST) * np.sqrt(reach)), size)[..., None]
    picture = np.where(dark, grey, picture) * light
    rank = np.where(is_lost, -1, drawing.colour[owner]) if len(drawing) else np.full_like(owner, -1)
    picture = _tinted(picture, _spread(rank, size))
    if min(size[0] / shape[1], size[1] / shape[2]) >= _SMALLEST_CELL:
        picture = _with_lines(picture, _spread(region, size), ~_spread(is_lost, size), 0.3)
    return _bytes(picture)


def tokens_tile(frames: NDArray[np.uint8], number: int, drawing: Drawing, size: Size) -> Pixels:
    """Draw what the language model reads in place of a frame: every token shows the mean of its sources.

    Layers stand side by side. Lines within a layer separate what comes from different frames.

    Args:
        frames: (T, h, w, 3).
        number: Number of the frame.
        drawing: The tokens.
        size: Of the tile.
    """
    here = np.flatnonzero(drawing.frame == number)
    picture = np.empty((*size, 3))
    picture[:] = PANEL
    if not len(here):
        return picture.astype(np.uint8)
    side = math.ceil(math.sqrt(drawing.layer[here].max() + 1))
    inner = size[0] // side, size[1] // side
    for layer in range(drawing.layer[here].max() + 1):
        top, left = layer // side * inner[0], layer % side * inner[1]
        own = here[drawing.layer[here] == layer]
        picture[top : top + inner[0], left : left + inner[1]] = _layer(frames, own, drawing, inner)
    return _bytes(picture)


def heat_tile(frame: Pixels, number: int, values: Array, shape: Shape, size: Size) -> Pixels:
    """Draw numbers from 0 to 1 (S,) over a frame; for the other arguments see `patches_tile`."""
    here = slice(number * shape[1] * shape[2], (number + 1) * shape[1] * shape[2])
    heat = heat_colours(_spread(values[here].reshape(shape[1:]), size)).astype(np.float64)
    grey = resized(frame, size).mean(axis=2, keepdims=True)
    return _bytes(0.8 * heat + 0.2 * grey)


def _layer(frames: NDArray[np.uint8], tokens: Array, drawing: Drawing, size: Size) -> Array:
    """Draw tokens that do not cover each other."""
    picture, token, home = np.empty((*size, 3)), np.full(size, -1), np.full(size, -1)
    picture[:] = PANEL
    edges = np.rint(drawing.box[tokens] * np.array([size[1], size[0]] * 2)).astype(int)
    for one, (x0, y0, x1, y1) in zip(tokens.tolist(), edges.tolist(), strict=True):
        if x1 <= x0 or y1 <= y0:
            continue
        picture[y0:y1, x0:x1] = shown(frames, drawing, one, (y1 - y0, x1 - x0))
        token[y0:y1, x0:x1] = one
        first, end = drawing.cuttings.offsets[one : one + 2]
        if first < end:  # a blank token, as in the last picture of image_grid, comes from no frame
            home[y0:y1, x0:x1] = drawing.cuttings.frame[first]
    rank = np.where(token < 0, -1, drawing.colour[token])
    cell = math.sqrt(np.prod(edges[:, 2:] - edges[:, :2], axis=1).mean())
    if cell >= _SMALLEST_CELL:
        picture = _framed(picture, token, rank, min(max(round(cell / 12), 1), _WIDEST_FRAME))
    home = np.where(rank >= 0, -2, home)
    return _with_lines(picture, home, home >= 0, 0.9)


def shown(frames: NDArray[np.uint8], drawing: Drawing, token: int, size: Size) -> Array:
    """Return what a token shows: the weighted mean of its cuttings, (h, w, 3)."""
    cuttings = drawing.cuttings
    picture = np.zeros((*size, 3))
    for one in range(cuttings.offsets[token], cuttings.offsets[token + 1]):
        frame = frames[cuttings.frame[one]]
        box = cuttings.box[one] * np.array([frame.shape[1], frame.shape[0]] * 2)
        cutting = Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BOX, tuple(box.tolist()))
        picture += cuttings.share[one] * np.asarray(cutting, np.float64)
    return picture


def _bytes(picture: Array) -> Pixels:
    return picture.round().astype(np.uint8)


def _spread(cells: Array, size: Size) -> Array:
    """Enlarge (H, W) cells to a tile: every pixel has the value of the cell that its centre lies in."""
    rows = ((np.arange(size[0]) + 0.5) * cells.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * cells.shape[1] / size[1]).astype(int)
    spread: Array = cells[rows[:, None], columns]
    return spread


def _tinted(picture: Array, rank: Array) -> Array:
    colours = np.array(group_colours(), np.float64)[rank % NUM_GROUP_COLOURS]
    return np.where((rank >= 0)[..., None], (1 - _TINT) * picture + _TINT * colours, picture)


def _framed(picture: Array, token: Array, rank: Array, width: int) -> Array:
    """Draw dark lines between tokens, and inside each token of a group a frame of `width` pixels in its colour."""
    outer = _edges(token)
    picture = np.where(outer[..., None], 0.4 * picture, picture)
    padded, inner = np.pad(token, width, constant_values=-2), np.zeros_like(outer)
    for shift in range(1, width + 1):
        for axis in (0, 1):
            for by in (shift, -shift):
                inner |= np.roll(padded, by, axis)[width:-width, width:-width] != token
    colours = np.array(group_colours(), np.float64)[rank % NUM_GROUP_COLOURS]
    return np.where((inner & ~outer & (rank >= 0))[..., None], colours, picture)


def _with_lines(picture: Array, label: Array, where: Array, strength: float) -> Array:
    """Draw light lines of one pixel between areas of different labels, both of which lie in `where`."""
    below, right = where.copy(), where.copy()
    below[:-1] &= where[1:]
    right[:, :-1] &= where[:, 1:]
    edge = ((_edges(label, 0) & below) | (_edges(label, 1) & right))[..., None]
    return np.where(edge, (1 - strength) * picture + strength * 255, picture)


def _edges(label: Array, *axes: int) -> Array:
    """Tell which pixels differ from the next one along `axes`, or along either axis without any."""
    edge = np.zeros(label.shape, np.bool_)
    if 1 not in axes:
        edge[:-1] |= label[:-1] != label[1:]
    if 0 not in axes:
        edge[:, :-1] |= label[:, :-1] != label[:, 1:]
    return edge
