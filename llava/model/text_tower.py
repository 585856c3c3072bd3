"""TextTower: the text half of a SigLIP or CLIP model, for evidence; LLaVA's checkpoints do not contain it.

Both models were trained to map an image and its caption to similar vectors. With the text half, a method can compare a
question with frames (by the vectors of SigLIP's pooling head) or with patches (by CLIP's projection). We load it, with
its tokenizer, from the checkpoint of the original model.

Source: https://arxiv.org/abs/2303.15343 (SigLIP), https://arxiv.org/abs/2103.00020 (CLIP).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
    SiglipTextModel,
)

from llava.model.tower_files import check_tower_files, pretrained
from stgridpool.checkpoint_files import is_hub_name, one_line

OPTION = "text_tower"


@dataclass(frozen=True, eq=False)
class TextTower:
    """A text encoder. It is not a module, so that a model is saved without it, as it was loaded.

    Attributes:
        name: Folder or hub name from which it was loaded.
        model: Maps ids (M, length) to an output that contains one vector (M, C) for each row.
        output: Name of these vectors in the output.
        tokenizer: The tokenizer of the encoder.
        length: Number of tokens per row; shorter texts are padded to it, as in training.
        projection: Maps the width of the vision tower to C; None if patches cannot be compared with text.
    """

    name: str
    model: nn.Module
    output: str
    tokenizer: Any
    length: int
    projection: nn.Module | None = None

    def modules(self) -> nn.ModuleList:
        """Return all parts, to move them or to read their weights."""
        return nn.ModuleList([self.model, *([] if self.projection is None else [self.projection])])

    def embed(self, text: str, device: torch.device) -> Tensor:
        """Embed a text: (M, C) float32, one row for each piece that fits.

        A longer text is cut between tokens into pieces of the same length, but for the last one, each with the tokens
        that begin and end a text.
        """
        model: Any = self.model.to(device)  # the model may have been moved since
        ids = torch.tensor(pieces(self.tokenizer, text, self.length), device=device)
        with torch.no_grad():
            vectors: Tensor = getattr(model(input_ids=ids), self.output)
        return vectors.float()

    def project(self, patches: Tensor) -> Tensor:
        """Project normalised patches (..., width of the tower) into the space of the text, (..., C)."""
        return patches if self.projection is None else self.projection.to(patches.device)(patches)


def pieces(tokenizer: Any, text: str, length: int) -> list[list[int]]:
    """Return the ids of a text in rows of `length`; each begins and ends as a whole text does, and is padded."""
    content = tokenizer(text, add_special_tokens=False).input_ids
    whole = tokenizer(text).input_ids
    num_special = len(whole) - len(content)
    begin = next((n for n in range(num_special) if whole[n : n + len(content)] == content), num_special)
    first, last = whole[:begin], whole[begin + len(content) :]
    room = length - num_special
    rows = [first + content[start : start + room] + last for start in range(0, max(1, len(content)), room)]
    return [row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]


def check_text_tower(source: str) -> None:
    """Check the files of the model `source` before they are needed.

    Raises:
        ValueError: If there is no such folder, or its files are damaged.
    """
    if not Path(source).is_dir() and not is_hub_name(source):
        raise ValueError(
            f"{OPTION}={source!r} names a folder that is not there: put the model into it from which the vision tower "
            "was made, or give its hub name, such as openai/clip-vit-large-patch14-336"
        )
    try:
        check_tower_files(source)
    except ValueError as error:
        raise ValueError(f"{OPTION}={source!r}: {error}") from error


def load_siglip_text(source: str, width: int, dtype: torch.dtype) -> TextTower:
    """Load the text half of the SigLIP model `source`, whose pooling head outputs vectors of `width`.

    Raises:
        ValueError: If there is no such model, or the tower was made from another one.
    """
    model: Any = pretrained(SiglipTextModel, source, OPTION, dtype)
    _check_width(source, "its text half", model.head.out_features, width)
    return TextTower(source, model.eval(), "pooler_output", *_reader(source, model.config))


def load_clip_text(source: str, width: int, dtype: torch.dtype) -> TextTower:
    """Load the text half and the projections of the CLIP model `source`, whose image encoder has the given `width`.

    Raises:
        ValueError: If there is no such model, or the tower was made from another one.
    """
    model: Any = pretrained(CLIPTextModelWithProjection, source, OPTION, dtype)
    image: Any = pretrained(CLIPVisionModelWithProjection, source, OPTION, dtype)
    projection = image.visual_projection
    _check_width(source, "its image encoder", projection.in_features, width)
    return TextTower(source, model.eval(), "text_embeds", *_reader(source, model.config), projection)


def missing_text_tower(need: object, name: str) -> str:
    """Return the error message for a method that needs the text half of a tower, which was not loaded."""
    return (
        f"{need!r} asks for the text half of the vision tower {name}, which LLaVA's checkpoints leave out: load the "
        "model with the option text_tower, a folder or hub name of the original SigLIP or CLIP model such as "
        "text_tower=openai/clip-vit-large-patch14-336"
    )


def _reader(source: str, config: Any) -> tuple[Any, int]:
    """Return the tokenizer of a text half, and its number of tokens per row."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"the tokenizer of {OPTION}={source!r} cannot be read: {one_line(error)}") from error
    return tokenizer, config.max_position_embeddings


def _check_width(source: str, part: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise ValueError(
            f"{OPTION}={source!r} does not fit the vision tower, whose features have width {wanted}: {part} has width "
            f"{found}; name the model that the tower was made from"
        )
