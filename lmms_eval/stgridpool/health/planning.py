"""What a method makes of a video, counted without running a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

from llava.model.checkpoint_files import checkpoint_folder
from llava.model.known_towers import patches_per_side
from llava.model.newline_rule import newline_position
from llava.model.own_pooling import pooling_compressor
from llava.nvila.counts import VideoCounts
from llava.nvila.layout import is_nvila
from lmms_eval_stgridpool.health.largest import NEAR, largest
from stgridpool import Compressor, Shape
from stgridpool.budget import BudgetError
from stgridpool.compressor import PATCHES, Step, planned_counts, steps_that_renumber
from stgridpool.cost import DecoderSize
from stgridpool.equal_budget import Reference, planned_layers, planned_retention
from stgridpool.newline_counts import count_newlines
from stgridpool.retention import WITH_NEWLINES

TEXT_TOKENS = 64
"""Tokens of template and question that are added to the video's for cost and context."""
MOST_FRAMES = 100_000
_SIZES = (
    *("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size"),
    "vocab_size",
)
_DEFAULTS = {"mm_spatial_pool_mode": "bilinear", "mm_patch_merge_type": "flat", "mm_newline_position": "one_token"}
"""Defaults of `LlavaQwenConfig`."""


@dataclass(frozen=True)
class Planned:
    """What a method makes of a number of frames; None where the tokens decide.

    Attributes:
        compressor: The method with its options.
        frames: Number of frames.
        own_tokens: Visual tokens after the checkpoint's own pooling, without newlines.
        tokens: Visual tokens that enter the language model.
        newlines: Newline tokens beside them; at most that many if `newlines_are_exact` is False.
        newlines_are_exact: Whether their number is known: they fall away where a row or frame has no token left.
        kept: Tokens by each definition of retention.
        retention: The same as fractions of `own_tokens`, or of these and their newlines.
        tflops: Estimated floating-point operations of the prefill, 10^12, with `TEXT_TOKENS` of text.
        kv_megabytes: Size of the cache of keys and values in 16 bits, 10^6 bytes.
        positions: Positions of the longest prompt in the longest layer, `TEXT_TOKENS` included; None where the tokens
            decide.
        fits: Whether these are no more than the checkpoint's context; None if not known.
    """

    compressor: str
    frames: int
    own_tokens: int
    tokens: int | None
    newlines: int
    newlines_are_exact: bool
    kept: dict[str, int | None]
    retention: dict[str, float | None]
    tflops: float | None
    kv_megabytes: float | None
    positions: int | None
    fits: bool | None


@dataclass(frozen=True, eq=False)
class Planner:
    """Counts tokens for one checkpoint.

    Attributes:
        reference: What retention is measured against.
        size: Size of the language model.
        newline_position: Where newline tokens stand.
        longest: Longest prompt, in positions.
        text_tokens: Tokens of template and question that are added to the video's; class attribute.
    """

    text_tokens: ClassVar[int] = TEXT_TOKENS

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

        found = read_checkpoint(checkpoint_folder(checkpoint), overwrites=overwrites)
        config: Any = found.config
        outline = found.outline()
        side = outline.projected_side
        reference = Reference(outline.own_pooling, (side, side), config.num_hidden_layers)
        position = outline.newline_position()
        return cls(reference, DecoderSize.of(config), position, config.tokenizer_model_max_length)

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

    def plan(self, compressor: Compressor, frames: int) -> Planned:
        """Count what a method makes of `frames` frames.

        Raises:
            ValueError: If the model is not deep enough for it, or there are too few tokens for its options.
        """
        method, reference = compressor.for_depth(self.reference.num_layers), self.reference
        layers, own = planned_layers(method, frames, reference), reference.own_count(frames)
        shape = self._lattice(method, frames)
        newlines = count_newlines(shape or reference.own_shape(frames), self.newline_position)
        is_exact = self.newline_position in ("one_token", "no_token") or (shape is not None and len(set(layers)) == 1)
        retention = planned_retention(method, frames, reference)
        own_newlines = count_newlines(reference.own_shape(frames), self.newline_position)
        kept = {name: None if share is None else round(share * own) for name, share in retention.items()}
        for name in tuple(kept):
            count = kept[name]
            with_newlines = count + newlines if count is not None and is_exact else None
            kept[name + WITH_NEWLINES] = with_newlines
            whole = own + own_newlines
            retention[name + WITH_NEWLINES] = None if with_newlines is None else with_newlines / whole
        known = [count + newlines + TEXT_TOKENS for count in layers if count is not None]
        lengths = known if len(known) == len(layers) else None
        first = layers[0]
        front = planned_counts(self._front_steps(method), (frames, *reference.patches))[-1]
        longest = first if first is not None and steps_that_renumber(method.steps()) else front
        positions = None if longest is None else longest + newlines + TEXT_TOKENS
        return Planned(
            compressor=repr(method),
            frames=frames,
            own_tokens=own,
            tokens=first,
            newlines=newlines,
            newlines_are_exact=is_exact,
            kept=kept,
            retention=retention,
            tflops=None if lengths is None else self.size.prefill_flops(lengths) / 1e12,
            kv_megabytes=None if lengths is None else self.size.kv_bytes(lengths) / 1e6,
            positions=positions,
            fits=None if positions is None or self.longest is None else positions <= self.longest,
        )

    def fit(self, compressor: Compressor, most_tokens: int) -> int:
        """Return the largest number of frames of which at most `most_tokens` enter the language model, with newlines.

        Raises:
            ValueError: If the fewest frames that the method takes have more, or the number of tokens depends on the
                tokens.
        """

        def count(frames: int) -> int | None:
            planned = self._taken(compressor, frames)
            if planned is None:
                return None
            if planned.tokens is None:
                raise ValueError(
                    f"the number of tokens that {compressor!r} keeps depends on the video: give it a budget, such as "
                    "retention, tokens or tokens_per_frame"
                )
            return planned.tokens + planned.newlines

        def holds(frames: int) -> bool | None:
            found = count(frames)
            return None if found is None else found <= most_tokens

        most = largest(holds, MOST_FRAMES)
        if most is not None:
            return most
        counts = ((frames, count(frames)) for frames in range(1, NEAR + 1))
        fewest = next(((frames, found) for frames, found in counts if found is not None), None)
        if fewest is None:
            raise ValueError(f"{compressor!r} takes no number of frames up to {NEAR}: change its budget")
        frames, tokens = fewest
        which = "one frame has" if frames == 1 else f"{frames} frames, the fewest that {compressor!r} takes, have"
        raise ValueError(f"{which} {tokens} tokens, more than {most_tokens}")

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

    def _lattice(self, method: Compressor, frames: int) -> Shape | None:
        """Return the lattice of the tokens that enter the language model; None if they do not fill one."""
        shape: Shape | None = (frames, *self.reference.patches)
        for step in self._front_steps(method):
            shape = None if shape is None else step.compressor.planned_shape(shape)
        return shape

    def _front_steps(self, method: Compressor) -> list[Step]:
        """Return the steps in front of the language model, including the checkpoint's own pooling."""
        steps = [step for step in method.steps() if not step.is_inside]
        if not any(step.place == PATCHES for step in steps):
            early = sum(step.is_before_features for step in steps)
            steps[early:early] = self.reference.own_pooling.steps()
        return steps


def _decoder_size(settings: Mapping[str, Any]) -> DecoderSize | None:
    """Return the size of a language model by its settings; None if one is left out."""
    sizes = {name: settings.get(name) for name in ("head_dim", *_SIZES)}
    return DecoderSize.of(SimpleNamespace(**sizes)) if all(isinstance(sizes[name], int) for name in _SIZES) else None
