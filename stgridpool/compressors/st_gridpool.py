"""ST-GridPool: pyramid temporal gridding, then norm-based spatial pooling."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from stgridpool.compressor import PATCHES, Compressor, Step
from stgridpool.compressors.bilinear import Bilinear
from stgridpool.compressors.nsp import NSP
from stgridpool.compressors.ptg import PTG, RELEASED_LEVELS, RELEASED_WINDOW, WRITES
from stgridpool.equal_budget import Reference, window_sides
from stgridpool.evidence import Evidence
from stgridpool.frames.layout import lay_out
from stgridpool.frames.patterns import resizing
from stgridpool.frames.window_pooling import WHOLE_WINDOWS
from stgridpool.options import Pair, choice
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens

_TEMPORAL = ("strides", "window", "levels")
_DEFAULTS: dict[str, Any] = {
    **{"write": "replace", "gridding": "tokens", "pooling": "nsp"},
    **{"kernel_size": 2, "norm_order": 2.0},
}
_RELEASED: dict[str, Any] = {"window": RELEASED_WINDOW, "levels": RELEASED_LEVELS}


def _presets() -> dict[str, dict[str, Any]]:
    """Return the presets: what each sets besides the defaults."""
    found = {"released": _RELEASED, "paper": {"window": 4, "levels": 3}}
    for window in (4, 8):
        for levels in (1, 2, 3, 4):
            found[f"ablation/window_{window}_levels_{levels}"] = {"window": window, "levels": levels}
    changes: dict[str, dict[str, Any]] = {f"kernel_{size}": {"kernel_size": size} for size in (1, 2, 3, 4)}
    changes |= {f"norm_{order}": {"norm_order": float(order)} for order in ("1", "2", "inf")}
    changes |= {f"write_{write}": {"write": write} for write in WRITES}
    changes |= {"image_gridding": {"gridding": "images"}, "ptg": {"pooling": "bilinear"}}
    changes |= {"30_percent_fewer": {"kernel_size": (2, 3)}, "50_percent_fewer": {"kernel_size": 3}}
    found |= {f"ablation/{name}": _RELEASED | change for name, change in changes.items()}
    return found | {"ablation/nsp": {"strides": ()}}


@dataclass(frozen=True)
class STGridPool(Compressor):
    """PTG on the unpooled frames, then NSP, in place of a Video LLM's own pooling: 27x27 tokens a frame become 13x13.

    Each mosaic is computed once, as extra rows from which the output is drawn. Frames that PTG does not replace are
    never copied.

    Presets, all with grids of 4 frames, and with 3 levels and the defaults of NSP where they say nothing else:

    * ``released`` (the default): windows of 8, 16 and 32 frames, strides 2, 4, 8, as in the released runs;
    * ``paper``: windows of 4, 8 and 16 frames, strides 1, 2, 4, by the paper's formula;
    * None: the caller passes what presets set, strides, or window and levels;
    * ``ablation/...``: ``released`` with one thing changed, along the axes of the paper's ablations:
      ``window_8_levels_2`` and others say the first window and the levels, ``kernel_3`` the windows of NSP,
      ``norm_inf`` its norm, ``write_append`` how mosaics enter the video. ``image_gridding`` makes them of frames,
      before the vision tower. ``ptg`` pools as LLaVA-Video does in place of NSP; ``nsp`` makes no mosaics.
      ``30_percent_fewer`` and ``50_percent_fewer`` have windows of 2x3 and 3x3: 117 and 81 tokens of 27x27, 31 and
      52 % fewer than the 169 of ``released``.

    Explicit options take precedence over the preset. The object stores the resulting options, and keeps the name of
    the preset only if all of them are those of the preset.

    Source: ST-GridPool (ICLR 2026).

    Attributes:
        preset: See above; None for none.
        strides: See `PTG`. Without strides there are no mosaics.
        grid_size, window, levels, write, gridding: See `PTG`.
        pooling: "nsp"; or "bilinear", LLaVA-Video's own, which takes `kernel_size` as its stride, and none of the other
            options of NSP.
        kernel_size, stride, padding, ceil_mode, norm_order, scale: See `NSP`.

    Raises:
        ValueError: If the preset is unknown, or an option is missing, of the wrong type or out of its range.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = _presets()
    without_budget: ClassVar[str] = WHOLE_WINDOWS

    preset: str | None = "released"
    strides: tuple[float, ...] | None = None
    grid_size: int | tuple[int, ...] = 4
    window: int | None = None
    levels: int | None = None
    write: str | None = None
    gridding: str | None = None
    pooling: str | None = None
    kernel_size: int | Pair | None = None
    stride: int | Pair | None = None
    padding: int | Pair = 0
    ceil_mode: bool = False
    norm_order: float | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        settings = {} if self.preset is None else self.PRESETS[choice("preset", self.preset, self.PRESETS)]
        temporal = {name: getattr(self, name) for name in _TEMPORAL if getattr(self, name) is not None}
        if self.strides is None:
            usual = {name: settings[name] for name in _TEMPORAL if name in settings}
            temporal = temporal if temporal and "strides" in usual else usual | temporal
        if not temporal:
            raise ValueError("without a preset, strides or window and levels must be given")
        for name, default in _DEFAULTS.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, settings.get(name, default))
        choice("pooling", self.pooling, ("nsp", "bilinear"))
        for part in (
            PTG(grid_size=self.grid_size, write=str(self.write), gridding=str(self.gridding), **temporal),
            self.nsp,
        ):
            for field in fields(part):
                object.__setattr__(self, field.name, getattr(part, field.name))
        self._check_bilinear()
        if self.preset is not None and (self.ptg, self.nsp, self.pooling) != _parts(settings):
            object.__setattr__(self, "preset", None)

    def _check_bilinear(self) -> None:
        """Refuse options of NSP that bilinear pooling would ignore."""
        usual = NSP(self.nsp.kernel_size)
        names = [field.name for field in fields(NSP) if getattr(self, field.name) != getattr(usual, field.name)]
        if self.pooling == "bilinear" and names:
            given = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
            raise ValueError(f"pooling='bilinear' takes kernel_size alone, got {given}: leave it out or pool by 'nsp'")

    def at_retention(self, share: float, of: str, reference: Reference) -> Compressor:
        """Choose the windows of NSP, of any sides, that come nearest. See `Compressor.at_retention`."""
        del of  # all definitions agree on what enters the language model
        return reference.nearest((replace(self, kernel_size=one, stride=None) for one in window_sides()), share)

    @property
    def ptg(self) -> PTG:
        """The first of the two methods."""
        return PTG(self.strides, self.grid_size, write=str(self.write), gridding=str(self.gridding))

    @property
    def nsp(self) -> NSP:
        """The second of the two methods."""
        return NSP(**{field.name: getattr(self, field.name) for field in fields(NSP)})

    def steps(self) -> tuple[Step, ...]:
        """Return where it acts: in place of the checkpoint's own pooling, and before that on frames, if told so."""
        if self.gridding == "tokens":
            return (Step(self, PATCHES),)
        return (*self.ptg.steps(), Step(self._pooling(), PATCHES))

    def planned_shape(self, shape: Shape) -> Shape:
        """Return (T', H', W'), see `PTG` and `NSP`."""
        return self._pooling().planned_shape(self.ptg.planned_shape(shape))

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Make mosaics of frames, and weigh the tokens of every window."""
        rewritten = self.ptg.rewrite(tokens.shape)
        pooling = self._pooling()
        if isinstance(pooling, NSP):
            return pooling.plan_rewritten(tokens, rewritten)
        pattern = resizing(tokens.shape[1:], pooling.planned_shape(tokens.shape)[1:], "linear")
        return lay_out(pattern, tokens.shape, tokens.maps().device, rewritten)

    def _pooling(self) -> NSP | Bilinear:
        return self.nsp if self.pooling == "nsp" else Bilinear(self.nsp.kernel_size)


def _parts(settings: dict[str, Any]) -> tuple[PTG, NSP, str]:
    """Return the two methods, and the pooling, that a preset describes."""
    chosen = _DEFAULTS | settings
    temporal = {name: chosen[name] for name in _TEMPORAL if name in chosen}
    nsp = NSP(kernel_size=chosen["kernel_size"], norm_order=chosen["norm_order"])
    return PTG(write=chosen["write"], gridding=chosen["gridding"], **temporal), nsp, chosen["pooling"]
