"""What a method leaves of a video, counted without running a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from llava.model.known_towers import patches_per_side
from llava.model.newline_rule import newline_position
from llava.model.own_pooling import pooling_compressor
from llava.nvila.counts import VideoCounts
from llava.nvila.layout import is_nvila
from lmms_eval_stgridpool.health.largest import largest
from lmms_eval_stgridpool.health.planned import MOST_FRAMES, Outline, Planned, fit, plan_video
from stgridpool import Compressor
from stgridpool.budget import BudgetError
from stgridpool.checkpoint_files import checkpoint_folder
from stgridpool.cost import DecoderSize
from stgridpool.equal_budget import Reference

_SIZES = (
    *("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size"),
    "vocab_size",
)
_DEFAULTS = {"mm_spatial_pool_mode": "bilinear", "mm_patch_merge_type": "flat", "mm_newline_position": "one_token"}
"""Defaults of `LlavaQwenConfig`."""


@dataclass(frozen=True, eq=False)
class Planner:
    """Counts tokens for one checkpoint.

    Attributes:
        reference: What retention is measured against.
        size: Size of the language model.
        newline_position: Where newline tokens stand.
        longest: Longest prompt, in positions.
    """

    reference: Reference
    size: DecoderSize
    newline_position: str
    longest: int | None

    @classmethod
    def of(cls, checkpoint: str, overwrites: Mapping[str, Any] | None = None) -> "Planner":
        """Read a checkpoint's settings and headers.

        Args:
            checkpoint: Folder or hub name.
            overwrites: Settings that take precedence over those of the checkpoint's configuration.

        Raises:
            ValueError: If the checkpoint cannot be read, or contradicts itself.
        """
        from llava.model.checkpoint import read_checkpoint  # noqa: PLC0415 - imports transformers, for seconds
        from llava.nvila.checkpoint import NvilaCheckpoint  # noqa: PLC0415

        found = read_checkpoint(checkpoint_folder(checkpoint), overwrites=overwrites)
        planner = None if isinstance(found, NvilaCheckpoint) else cls.of_settings(vars(found.config))
        return planner or cls.of_model(found.outline())

    @classmethod
    def of_model(cls, model: Any) -> "Planner":
        """Read the same off a model in LLaVA's terms, which need not have weights."""
        side, config = model.projected_side, model.config
        reference = Reference(model.own_pooling, (side, side), config.num_hidden_layers)
        return cls(reference, DecoderSize.of(config), model.newline_position(), config.tokenizer_model_max_length)

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> "Planner | None":
        """Read the same from a configuration alone, without transformers and without checking it.

        Args:
            settings: The settings in config.json, and what takes precedence over them.

        Returns:
            None if a size is left out, whose default only transformers knows.

        Raises:
            ValueError: If the vision tower is a folder that cannot be read, or an encoder of NVILA is not supported.
        """
        if is_nvila(settings):
            return cls._of_nvila(settings)
        side, size = patches_per_side(settings), _decoder_size(settings)
        if side is None or size is None:
            return None
        texts = {name: settings.get(name) or default for name, default in _DEFAULTS.items()}
        own = Reference(pooling_compressor(texts["mm_spatial_pool_mode"]), (side, side), size.layers)
        position = newline_position(texts["mm_patch_merge_type"], texts["mm_newline_position"])
        return cls(own, size, position, settings.get("tokenizer_model_max_length"))

    @classmethod
    def _of_nvila(cls, settings: Mapping[str, Any]) -> "Planner | None":
        counts = VideoCounts.of(settings)
        size = None if counts is None else _decoder_size(settings["llm_cfg"])
        if counts is None or size is None:
            return None
        own = Reference(counts.own_pooling, (counts.side, counts.side), size.layers)
        return cls(own, size, counts.newline_position, counts.longest)

    @property
    def most_sampled(self) -> int:
        """Most frames that can be sampled, however long a video is."""
        return MOST_FRAMES

    def outline(self, frames: int) -> Outline:
        """Return the sizes of a video of `frames` frames."""
        return Outline(frames, self.reference, frames, self.newline_position)

    def plan(self, compressor: Compressor, frames: int) -> Planned:
        """Count what a method leaves of `frames` frames.

        Raises:
            ValueError: If the model is not deep enough for it, or there are too few tokens for its options.
        """
        method = compressor.for_depth(self.reference.num_layers)
        return plan_video(method, self.outline(frames), self.size, self.longest)

    def fit(self, compressor: Compressor, most_tokens: int) -> int:
        """Return the largest number of frames of which at most `most_tokens` enter the language model, with newlines.

        Raises:
            ValueError: See `planned.fit`.
        """
        return fit(lambda frames: self._taken(compressor, frames), compressor, most_tokens)

    def most_frames(self, compressor: Compressor) -> int | None:
        """Return the largest number of frames whose prompt fits into the checkpoint's context; None if none does."""

        def holds(frames: int) -> bool | None:
            planned = self._taken(compressor, frames)
            return None if planned is None else planned.fits is True

        return largest(holds, MOST_FRAMES)

    def _taken(self, compressor: Compressor, frames: int) -> Planned | None:
        """Plan a number of frames; None if the method cannot meet its budget with it."""
        try:
            return self.plan(compressor, frames)
        except BudgetError:
            return None


def _decoder_size(settings: Mapping[str, Any]) -> DecoderSize | None:
    """Return the size of a language model by its settings; None if one is left out."""
    sizes = {name: settings.get(name) for name in ("head_dim", *_SIZES)}
    return DecoderSize.of(SimpleNamespace(**sizes)) if all(isinstance(sizes[name], int) for name in _SIZES) else None
