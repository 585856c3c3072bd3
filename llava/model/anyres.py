"""Merging of the features of an image's tiles into the tokens of the image.

Source: the merge types of https://github.com/LLaVA-VL/LLaVA-NeXT. Unlike there, tiles that do not fit the image's
layout are an error; the original assumes 2 x 2 tiles.
"""

import math
import re

import torch
from torch.nn import functional as F

Size = tuple[int, int]  # (width, height)


def merge_image(
    features: torch.Tensor,
    side: int,
    merge_type: str,
    newline: torch.Tensor | None = None,
    *,
    grid: Size = (2, 2),
    image_size: Size | None = None,
    max_tiles: int | None = None,
) -> torch.Tensor:
    """Merge the feature maps of one image into its tokens.

    A single feature map is used unchanged. Otherwise the first map shows the whole image, and the others are its tiles,
    which are joined into one map. `unpad` crops the padding of that map, shrinks it if it is far larger than
    `max_tiles` tiles, and ends every row with a newline token; `maxpool2x2` halves it instead. The tokens of the whole
    image come first, unless the merge type contains `nobase`.

    Args:
        features: (1 + k, n*n, D).
        side: n, patches along a side of a tile.
        merge_type: `flat` or `spatial`, followed by any of `_unpad`, `_maxpool2x2`, `_nobase`.
        newline: (D,) newline token, needed by `unpad`.
        grid: Number of tiles along the width and the height; their product is k.
        image_size: (width, height) of the image in pixels; `unpad` needs it if there are tiles.
        max_tiles: N of `anyres_max_N`, or None.

    Returns:
        (L, D).

    Raises:
        ValueError: If the merge type is unknown, the number of tiles does not match, or the newline token or the image
            size is missing.
    """
    if merge_type == "flat":
        return features.flatten(0, 1)
    check_merge_type(merge_type)
    unpad = "unpad" in merge_type
    if unpad and newline is None:
        raise ValueError(f"mm_patch_merge_type {merge_type!r} needs a newline token, and the checkpoint has none")
    if len(features) == 1:
        return torch.cat([features[0], newline.to(features)[None]]) if newline is not None and unpad else features[0]
    joined = _joined(features, side, grid)
    if "maxpool2x2" in merge_type:
        joined = F.max_pool2d(joined, 2)
    elif unpad and newline is not None:
        if image_size is None:
            raise ValueError(f"mm_patch_merge_type {merge_type!r} needs image_sizes for images in tiles")
        joined = _shrunk(without_padding(joined, image_size), side, max_tiles)
        column = newline.to(joined)[:, None, None].expand(-1, joined.shape[1], 1)
        joined = torch.cat([joined, column], dim=2)
    tokens = joined.flatten(1).transpose(0, 1)
    return tokens if "nobase" in merge_type else torch.cat([features[0], tokens])


def _joined(features: torch.Tensor, side: int, grid: Size) -> torch.Tensor:
    """Join the tiles of an image, all of `features` (1 + gh*gw, n*n, D) but the first, into one map (D, gh*n, gw*n)."""
    width, height = grid
    if len(features) != 1 + width * height:
        raise ValueError(
            f"an image of a {width} x {height} grid needs 1 + {width * height} tiles, got {len(features)}; "
            "pass image_sizes, and modalities=['video'] for frames of a video"
        )
    tiles = features[1:].unflatten(0, (height, width)).unflatten(2, (side, side))  # (gh, gw, n*n -> n, n, D)
    joined: torch.Tensor = tiles.permute(4, 0, 2, 1, 3).flatten(3, 4).flatten(1, 2)
    return joined


def check_merge_type(merge_type: str) -> None:
    """Check that a merge type is `flat` or a form of `spatial`.

    Raises:
        ValueError: If it is neither.
    """
    if merge_type != "flat" and not merge_type.startswith("spatial"):
        raise ValueError(f"mm_patch_merge_type must be 'flat' or begin with 'spatial', got {merge_type!r}")


def max_tiles_of(image_aspect_ratio: str) -> int | None:
    """Parse N of `anyres_max_N`; None for other modes."""
    match = re.match(r"anyres_max_(\d+)", image_aspect_ratio)
    return int(match.group(1)) if match else None


def without_padding(feature_map: torch.Tensor, image_size: Size) -> torch.Tensor:
    """Crop a map (D, h, w) to the part that shows a centred image of `image_size` (width, height).

    The same number of lines, rounded down, is cropped on both sides, so one line of padding may remain.
    """
    height, width = feature_map.shape[1:]
    image_width, image_height = image_size
    if image_width / image_height > width / height:
        padding = (height - int(image_height * (width / image_width))) // 2
        return feature_map[:, padding : height - padding]
    padding = (width - int(image_width * (height / image_height))) // 2
    return feature_map[:, :, padding : width - padding]


def _shrunk(feature_map: torch.Tensor, side: int, max_tiles: int | None) -> torch.Tensor:
    """Resize a map (D, h, w) to the area of `max_tiles` tiles if its sides are more than 1.1 times too long."""
    if max_tiles is None:
        return feature_map
    height, width = feature_map.shape[1:]
    times = math.sqrt(height * width / (max_tiles * side**2))
    if times <= 1.1:
        return feature_map
    return F.interpolate(feature_map[None], (int(height // times), int(width // times)), mode="bilinear")[0]
