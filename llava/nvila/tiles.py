"""Tiles of a single image: NVILA's modes `dynamic` (tiles and the whole image) and `dynamic_s2` (several scales).

Both choose the grid of tiles whose aspect ratio is closest to the image's. Tiles are S x S pixels, S the tower's input.

Source: https://github.com/NVlabs/VILA (April 2025), the rules as written down in its preprocessing.
"""

from collections.abc import Sequence
from typing import Any

from PIL import Image

Size = tuple[int, int]
DYNAMIC, DYNAMIC_S2 = "dynamic", "dynamic_s2"


def single_image_tiles(image: Image.Image, side: int, config: Any) -> list[Image.Image]:
    """Cut the only image of a prompt into tiles by `image_aspect_ratio`, one of the two modes.

    Args:
        image: RGB.
        side: S, in pixels.
        config: The `NvilaConfig`.
    """
    if config.image_aspect_ratio == DYNAMIC:
        return dynamic_tiles(image, side, config.min_tiles, config.max_tiles)
    return s2_tiles(image, config.s2_scales, config.max_tiles)


def closest_grid(size: Size, side: int, fewest: int, most: int) -> Size:
    """Choose the grid of tiles whose aspect ratio is closest to that of the image.

    Grids are compared in the order of their area; of equally close ones the last wins whose pixels the image fills by
    more than half.

    Args:
        size: (width, height) of the image, in pixels.
        side: S, in pixels.
        fewest: Minimum number of tiles, at least 1.
        most: Maximum number of tiles.

    Returns:
        (rows, columns).
    """
    grids = {(rows, columns) for rows in range(1, most + 1) for columns in range(1, most // rows + 1)}
    allowed = {(columns, rows) for rows, columns in grids if rows * columns >= fewest}
    width, height = size
    best, closest = (1, 1), float("inf")
    for columns, rows in sorted(allowed, key=lambda grid: grid[0] * grid[1]):
        distance = abs(width / height - columns / rows)
        is_filled = width * height > 0.5 * side * side * columns * rows
        if distance < closest or (distance == closest and is_filled):
            best, closest = (rows, columns), distance
    return best


def dynamic_grid(size: Size, side: int, config: Any) -> Size:
    """Return (rows, columns) of the tiles that an image of (width, height) is cut into by `dynamic`."""
    return closest_grid(size, side, config.min_tiles, config.max_tiles)


def dynamic_tiles(image: Image.Image, side: int, fewest: int, most: int) -> list[Image.Image]:
    """Cut an image into tiles, row by row; if there are several, the whole image follows as the last tile.

    Args:
        image: RGB.
        side: S, in pixels.
        fewest: Minimum number of tiles, without the whole image.
        most: Maximum number of tiles, without the whole image.
    """
    rows, columns = closest_grid(image.size, side, fewest, most)
    tiles = _cut(image, rows, columns, side)
    if len(tiles) > 1:
        tiles.append(_squeezed(image, side, side))
    return tiles


def s2_tiles(image: Image.Image, scales: Sequence[int], most: int) -> list[Image.Image]:
    """Cut an image into tiles at every scale; the last scale gets the grid that fits the image.

    Args:
        image: RGB.
        scales: Sides of the image at every scale, in pixels, ascending; the first one is S.
        most: Maximum number of tiles at the last scale.
    """
    tiles: list[Image.Image] = []
    for scale in scales[:-1]:
        tiles += _cut(image, scale // scales[0], scale // scales[0], scales[0])
    rows, columns = s2_blocks(image.size, scales, most)
    return tiles + _cut(image, rows, columns, scales[0])


def s2_blocks(size: Size, scales: Sequence[int], most: int) -> Size:
    """Return (rows, columns) of the tiles that `s2_tiles` cuts at the last scale of an image of (width, height)."""
    return closest_grid(size, scales[0], (scales[-1] // scales[0]) ** 2, most)


def _cut(image: Image.Image, rows: int, columns: int, side: int) -> list[Image.Image]:
    whole = _squeezed(image, columns * side, rows * side)
    corners = [(column * side, row * side) for row in range(rows) for column in range(columns)]
    return [whole.crop((left, top, left + side, top + side)) for left, top in corners]


def _squeezed(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height))  # Pillow's default filter for RGB images is bicubic
