"""ST-GridPool: pyramid temporal gridding, then norm-based spatial pooling."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from stgridpool.compressor import Compressor
from stgridpool.compressors.nsp import NSP
from stgridpool.compressors.ptg import PTG, RELEASED_LEVELS, RELEASED_WINDOW
from stgridpool.equal_budget import Reference, window_sides
from stgridpool.evidence import Evidence
from stgridpool.options import Pair, choice
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens

_TEMPORAL = ("strides", "window", "levels")


@dataclass(frozen=True)
class STGridPool(Compressor):
    """PTG on the unpooled frames, then NSP, in place of a Video LLM's own pooling: 27x27 tokens a frame become 13x13.

    Each mosaic is computed once, as extra rows from which the output is drawn. Frames that PTG does not replace are
    never copied.

    Presets, all with grids of 4 frames, 3 levels and the defaults of NSP:

    * ``released`` (the default): windows of 8, 16 and 32 frames, strides 2, 4, 8, as in the released runs;
    * ``paper``: windows of 4, 8 and 16 frames, strides 1, 2, 4, by the paper's formula;
    * None: the caller passes what presets set, strides, or window and levels.

    Explicit options take precedence over the preset. The object stores the resulting options, and keeps the name of
    the preset only if all of them are those of the preset.

    Source: ST-GridPool (ICLR 2026).

    Attributes:
        preset: ``released``, ``paper`` or None.
        strides, grid_size, window, levels: See `PTG`.
        kernel_size, stride, padding, ceil_mode, norm_order, scale: See `NSP`.

    Raises:
        ValueError: If the preset is unknown, or an option is missing, of the wrong type or out of its range.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "released": {"window": RELEASED_WINDOW, "levels": RELEASED_LEVELS},
        "paper": {"window": 4, "levels": 3},
    }

    preset: str | None = "released"
    strides: tuple[int, ...] | None = None
    grid_size: int | tuple[int, ...] = 4
    window: int | None = None
    levels: int | None = None
    kernel_size: int | Pair = 2
    stride: int | Pair | None = None
    padding: int | Pair = 0
    ceil_mode: bool = False
    norm_order: float = 2.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.preset is not None:
            choice("preset", self.preset, self.PRESETS)
        temporal = {name: getattr(self, name) for name in _TEMPORAL if getattr(self, name) is not None}
        if self.preset is not None and self.strides is None:
            temporal = self.PRESETS[self.preset] | temporal
        if not temporal:
            raise ValueError("without a preset, strides or window and levels must be given")
        ptg, nsp = PTG(grid_size=self.grid_size, **temporal), self.nsp
        if self.preset is not None and (ptg, nsp) != (PTG(**self.PRESETS[self.preset]), NSP()):
            object.__setattr__(self, "preset", None)
        for part in (ptg, nsp):
            for field in fields(part):
                object.__setattr__(self, field.name, getattr(part, field.name))

    def at_retention(self, share: float, of: str, reference: Reference) -> Compressor:
        """Choose the windows of NSP, of any sides, that come nearest. See `Compressor.at_retention`."""
        del of  # all definitions agree on what enters the language model
        return reference.nearest((replace(self, kernel_size=one, stride=None) for one in window_sides()), share)

    @property
    def ptg(self) -> PTG:
        """The first of the two methods."""
        return PTG(self.strides, self.grid_size)

    @property
    def nsp(self) -> NSP:
        """The second of the two methods."""
        return NSP(**{field.name: getattr(self, field.name) for field in fields(NSP)})

    def planned_shape(self, shape: Shape) -> Shape:
        """Return (T, H', W'), see `NSP`."""
        return self.nsp.planned_shape(shape)

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Replace some frames by mosaics, and weigh the tokens of every window."""
        return self.nsp.plan_rewritten(tokens, self.ptg.rewrite(tokens.shape))
