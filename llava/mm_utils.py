"""Preparation of prompts and images: tokenisation around images, any-resolution tiles, stop words.

Source: the functions of the same names in https://github.com/LLaVA-VL/LLaVA-NeXT define the behaviour.
"""

import ast
import math
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import torch
from PIL import Image
from transformers import StoppingCriteria

from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.image_processing import VisionImageProcessor
from llava.nvila.tiles import DYNAMIC, DYNAMIC_S2, single_image_tiles

Size = tuple[int, int]  # (width, height) in pixels
Pinpoints = str | Sequence[Sequence[int]]

_UNSUPPORTED_ASPECT_RATIOS = ("highres", "crop_split")


def get_model_name_from_path(model_path: str) -> str:
    """Return the last part of a path; a `checkpoint-N` folder is named together with its parent."""
    parts = PurePosixPath(model_path.strip("/")).parts
    return f"{parts[-2]}_{parts[-1]}" if parts[-1].startswith("checkpoint-") and len(parts) > 1 else parts[-1]


def tokenizer_image_token(
    prompt: str,
    tokenizer: Any,
    image_token_index: int = IMAGE_TOKEN_INDEX,
    return_tensors: str | None = None,
    num_images: int | None = None,
) -> list[int] | torch.Tensor:
    """Tokenise a prompt, with one placeholder for each `<image>`.

    The texts between the placeholders are tokenised one by one. If the tokenizer puts a start token before each of
    them, only the first is kept.

    Args:
        prompt: Text with any number of `<image>`.
        tokenizer: A transformers tokenizer.
        image_token_index: Id of the placeholder.
        return_tensors: "pt" for a 1-d long tensor, None for a list.
        num_images: Number of `<image>` that are placeholders; later ones are text. None for all.

    Raises:
        ValueError: If `return_tensors` is something else.
    """
    if return_tensors not in (None, "pt"):
        raise ValueError(f"return_tensors must be 'pt' or None, got {return_tensors!r}")
    texts = prompt.split(DEFAULT_IMAGE_TOKEN, -1 if num_images is None else num_images)
    pieces = [list(tokenizer(text).input_ids) for text in texts]
    starts_with_bos = bool(pieces[0]) and pieces[0][0] == tokenizer.bos_token_id
    ids = pieces[0]
    for piece in pieces[1:]:
        ids = [*ids, image_token_index, *piece[int(starts_with_bos) :]]
    return torch.tensor(ids, dtype=torch.long) if return_tensors == "pt" else ids


class KeywordsStoppingCriteria(StoppingCriteria):
    """Criterion that stops a sequence when it ends with a keyword.

    A sequence ends when its last ids are those of a keyword, or when a keyword occurs in the decoded text of its last
    three tokens (special tokens skipped). Our models generate from embeddings, so the criterion sees new tokens only
    although it counts from the prompt's length, as the original does: while there are fewer new tokens than prompt
    tokens, the text check sees the tokens after position `prompt length - new tokens`.

    Args:
        keywords: Texts that end an answer.
        tokenizer: Tokenizer of the model.
        input_ids: (B, L) prompt, for its length.
    """

    def __init__(self, keywords: Sequence[str], tokenizer: Any, input_ids: torch.Tensor) -> None:
        self.keywords = list(keywords)
        self.tokenizer = tokenizer
        self.start_len = input_ids.shape[1]
        self.keyword_ids: list[list[int]] = []
        for keyword in self.keywords:
            ids = list(tokenizer(keyword).input_ids)
            self.keyword_ids.append(ids[1:] if len(ids) > 1 and ids[0] == tokenizer.bos_token_id else ids)

    def __call__(self, output_ids: torch.Tensor, scores: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:  # noqa: ARG002
        """Tell which sequences of `output_ids` (B, L) are complete: (B,) bool."""
        done = [self._is_complete(row) for row in output_ids.tolist()]
        return torch.tensor(done, dtype=torch.bool, device=output_ids.device)

    def _is_complete(self, ids: list[int]) -> bool:
        if any(keyword and ids[-len(keyword) :] == keyword for keyword in self.keyword_ids):
            return True
        window = min(len(ids) - self.start_len, 3)
        text = self.tokenizer.decode(ids[-window:], skip_special_tokens=True)
        return any(keyword in text for keyword in self.keywords)


def expand2square(image: Image.Image, background_color: tuple[int, ...] | int) -> Image.Image:
    """Centre the image on a square of one colour whose side is the image's longer side."""
    side = max(image.size)
    square = Image.new(image.mode, (side, side), background_color)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def resolve_pinpoints(grid_pinpoints: Pinpoints, tile_size: int) -> list[Size]:
    """Parse the allowed (width, height) of a tiled image, in pixels.

    Args:
        grid_pinpoints: A list of (width, height); or a text, either such a list or a range of tile grids
            `(1x1),...,(6x6)`.
        tile_size: Side of a tile, in pixels; used by ranges only.

    Raises:
        ValueError: If the text cannot be parsed.
    """
    if not isinstance(grid_pinpoints, str):
        return [(int(width), int(height)) for width, height in grid_pinpoints]
    corners = [(int(width), int(height)) for width, height in re.findall(r"\((\d+)x(\d+)\)", grid_pinpoints)]
    if not corners:
        return resolve_pinpoints(ast.literal_eval(grid_pinpoints), tile_size)
    (first_width, first_height), (last_width, last_height) = corners[0], corners[-1]
    return [
        (width * tile_size, height * tile_size)
        for width in range(first_width, last_width + 1)
        for height in range(first_height, last_height + 1)
    ]


def select_best_resolution(original_size: Size, possible_resolutions: Sequence[Size]) -> Size:
    """Choose the resolution that keeps the most pixels of the image; among equals, the one that wastes the fewest.

    Args:
        original_size: (width, height) of the image, in pixels.
        possible_resolutions: Candidates (width, height), in pixels; the first of equal ones wins.
    """
    original_width, original_height = original_size

    def kept_and_wasted(resolution: Size) -> tuple[int, int]:
        width, height = resolution
        scale = min(width / original_width, height / original_height)
        kept = min(int(original_width * scale) * int(original_height * scale), original_width * original_height)
        return kept, kept - width * height

    return max(possible_resolutions, key=kept_and_wasted)


def get_anyres_image_grid_shape(image_size: Size, grid_pinpoints: Pinpoints, patch_size: int) -> Size:
    """Count the tiles along width and height of an image of `image_size` (width, height); `patch_size` is a side."""
    width, height = select_best_resolution(image_size, resolve_pinpoints(grid_pinpoints, patch_size))
    return width // patch_size, height // patch_size


def process_anyres_image(
    image: Image.Image, processor: VisionImageProcessor, grid_pinpoints: Pinpoints
) -> torch.Tensor:
    """Convert an image to pixel values (1 + k, 3, S, S): the whole image as one tile, then its k tiles, row by row."""
    image = image.convert("RGB")
    tile = processor.crop_size["height"]
    width, height = select_best_resolution(image.size, resolve_pinpoints(grid_pinpoints, tile))
    canvas = Image.new("RGB", (width, height))
    fitted = image.resize(_fitted_size(image.size, (width, height)))
    canvas.paste(fitted, ((width - fitted.width) // 2, (height - fitted.height) // 2))
    tiles = [image.resize((tile, tile))]
    tiles += [
        canvas.crop((left, top, left + tile, top + tile))
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]
    values: torch.Tensor = processor.preprocess(tiles, return_tensors="pt")["pixel_values"]
    return values


def _fitted_size(image_size: Size, target: Size) -> Size:
    """Fit the largest (width, height) with the image's aspect ratio into `target`; the free side rounds up."""
    scale_width, scale_height = target[0] / image_size[0], target[1] / image_size[1]
    if scale_width < scale_height:
        return target[0], min(math.ceil(image_size[1] * scale_width), target[1])
    return min(math.ceil(image_size[0] * scale_height), target[0]), target[1]


def process_images(
    images: Sequence[Image.Image], image_processor: VisionImageProcessor, model_cfg: Any
) -> torch.Tensor | list[torch.Tensor]:
    """Convert images to pixel values by the checkpoint's `image_aspect_ratio`.

    `anyres` and `anyres_max_N` make tiles, (1 + k, 3, S, S) per image. `pad` puts the image on a square of the mean
    colour, (3, S, S). NVILA's `dynamic` and `dynamic_s2` make tiles of a single image, (k, 3, S, S). For anything else,
    or nothing, the processor resizes the image, (3, S, S).

    Args:
        images: RGB images.
        image_processor: Processor of the vision tower.
        model_cfg: Configuration with `image_aspect_ratio` and, for tiles, `image_grid_pinpoints` or NVILA's settings.

    Returns:
        One tensor if all images have the same shape, else a list of tensors.

    Raises:
        ValueError: If `image_aspect_ratio` is one of the modes of older models, which are not supported.
    """
    mode = getattr(model_cfg, "image_aspect_ratio", None) or ""
    if mode in _UNSUPPORTED_ASPECT_RATIOS:
        raise ValueError(f"image_aspect_ratio {mode!r} is not supported; use anyres, anyres_max_N, pad or none")
    if mode == "anyres" or "anyres_max" in mode:
        pinpoints = model_cfg.image_grid_pinpoints
        tensors = [process_anyres_image(image, image_processor, pinpoints) for image in images]
    elif mode in (DYNAMIC, DYNAMIC_S2) and len(images) == 1:
        tiles = single_image_tiles(images[0].convert("RGB"), image_processor.image_size, model_cfg)
        tensors = [image_processor.preprocess(tiles, return_tensors="pt")["pixel_values"]]
    elif mode == "pad":
        background = tuple(int(channel * 255) for channel in image_processor.image_mean)
        squares = [expand2square(image.convert("RGB"), background) for image in images]
        tensors = list(image_processor.preprocess(squares, return_tensors="pt")["pixel_values"])
    else:
        values: torch.Tensor = image_processor.preprocess(list(images), return_tensors="pt")["pixel_values"]
        return values
    return torch.stack(tensors) if all(t.shape == tensors[0].shape for t in tensors) else tensors
