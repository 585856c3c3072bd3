"""NvilaVideoModel: NVILA as a `stgridpool.model.VideoModel`, the interface for evaluation and tools."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from transformers import PreTrainedTokenizerBase

from llava.encoded_image import EncodedImage
from llava.image_processing import VisionImageProcessor
from llava.nvila.model import NvilaForCausalLM
from llava.nvila.prompts import NvilaPrompts
from llava.nvila.tiles import DYNAMIC, dynamic_grid
from llava.video_model import LlavaVideoModel
from stgridpool.model import ClipTimes, Prompt, Visual
from stgridpool.timing import StageTimer


@dataclass(frozen=True, eq=False)
class ImageInTiles(EncodedImage):
    """An image in tiles; a line break follows it in the text, as one stands between the tiles."""

    is_in_tiles = True


class NvilaVideoModel(LlavaVideoModel):
    """An NVILA checkpoint; for attributes and methods see `stgridpool.model.VideoModel`.

    Args:
        model: The model of ``llava``.
        tokenizer: Its tokenizer.
        image_processor: Its image processor.
        conv_template: Name of a conversation template in place of the checkpoint's chat template, or None.
        add_time_instruction: Whether prompts state the length of each video and the times of its frames.
    """

    language_model: NvilaForCausalLM
    _prompts: NvilaPrompts

    def __init__(
        self,
        model: NvilaForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: VisionImageProcessor,
        conv_template: str | None = None,
        add_time_instruction: bool = False,
    ) -> None:
        prompts = NvilaPrompts(conv_template or "", tokenizer, False, add_time_instruction)
        super().__init__(model, tokenizer, image_processor, prompts=prompts)

    def prompt_of(self, parts: Sequence[str | Visual], answer: str | None = None) -> Prompt:
        """Build a prompt from texts and visuals in any order; see `prompt` for the usual order, visuals first."""
        visuals = [part for part in parts if not isinstance(part, str)]
        return self._prompt(self._prompts.turn(parts), visuals, answer)

    def encode_images(self, images: Sequence[Image.Image], timer: StageTimer) -> list[EncodedImage]:
        """Encode images; the only image of a prompt is cut into tiles if the checkpoint does so."""
        encoded = super().encode_images(images, timer)
        config = self.language_model.config
        if len(images) != 1 or config.image_aspect_ratio != DYNAMIC:
            return encoded
        side, [image], [one] = self.recipe.image_size, images, encoded
        is_whole = dynamic_grid(image.size, side, config) == (1, 1)
        return [one if is_whole else ImageInTiles(one.embeds, one.checks)]

    def facts(self) -> Mapping[str, Any]:
        """Return facts about the model for the record of a run."""
        model = self.language_model
        own = {"video_encoding": model.config.video_encoding, "own_pooling": repr(model.own_pooling)}
        return {**super().facts(), **own}

    def _question(self, context: str, visuals: Sequence[Visual], clips: Sequence[ClipTimes]) -> str:
        return self._prompts.asked(context, visuals, clips)

    def _image_settings(self, num_images: int) -> Any:
        del num_images  # the mode of the checkpoint says itself what becomes of several
        return copy.copy(self.language_model.config)
