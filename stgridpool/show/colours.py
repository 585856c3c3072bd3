"""Colours of pictures: of groups of tokens, of heat maps, and of everything around them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

BACKGROUND: Colour = (13, 17, 23)
PANEL: Colour = (28, 33, 41)
TEXT: Colour = (230, 237, 243)
FAINT: Colour = (139, 148, 158)

NUM_GROUP_COLOURS = 34
_TURN = math.pi * (3 - math.sqrt(5))  # the golden angle: no two neighbours in the list look alike
_HEAT = ((4, 4, 20), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))


def group_colours() -> list[Colour]:
    """Return the colours of groups, which repeat after `NUM_GROUP_COLOURS`; neighbours in the list differ most."""
    shades = ((0.76, 0.18), (0.66, 0.21), (0.86, 0.15))  # lightness and chroma in OKLCH
    return [_from_oklch(*shades[rank % len(shades)], rank * _TURN) for rank in range(NUM_GROUP_COLOURS)]


def heat_colours(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the colours (..., 3) of numbers from 0, dark, to 1, bright; NaN is the colour of a panel."""
    anchors = np.array(_HEAT, np.float64)
    place = np.nan_to_num(np.clip(values, 0, 1)) * (len(anchors) - 1)
    steps = np.arange(len(anchors))
    colours = np.stack([np.interp(place, steps, channel) for channel in anchors.T], -1)
    return np.where(np.isnan(values)[..., None], PANEL, np.rint(colours)).astype(np.uint8)


def scaled(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Scale numbers linearly to 0..1, from their 1st percentile to their 99th; NaN stays; equal numbers become 0.5."""
    known = values[~np.isnan(values)]
    low, high = np.percentile(known, (1, 99)) if len(known) else (0.0, 0.0)
    if high <= low:
        return np.where(np.isnan(values), values, 0.5)
    return np.clip((values - low) / (high - low), 0, 1)


def _from_oklch(lightness: float, chroma: float, hue: float) -> Colour:
    """Convert a colour. Source: B. Ottosson, https://bottosson.github.io/posts/oklab/."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short
    return _byte(red), _byte(green), _byte(blue)


def _byte(linear: float) -> int:
    linear = min(max(linear, 0.0), 1.0)
    encoded = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return round(255 * encoded)
