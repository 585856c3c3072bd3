"""Trace: what became of the patches of a video with one method.

Letters: T frames of H x W patches, S of them in all; N tokens; C cells of the lattice on which tokens stand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stgridpool.plan import Plan, Shape
from stgridpool.rows import Rows


@dataclass(frozen=True, eq=False)
class HeatMap:
    """A number for each patch, such as the norm of the token that it became.

    Attributes:
        label: What it is.
        values: (S,) float32; NaN where no token has this patch as its source.
    """

    label: str
    values: Tensor


@dataclass(frozen=True, eq=False)
class Stage:
    """The tokens at one point on their way.

    Attributes:
        label: The point, such as "into the language model".
        plan: From the patches to these tokens.
        lattice: (T', H', W') of the last lattice that tokens filled.
        chosen: From the cells of that lattice to these tokens: what the method has selected and merged.
        parts: (S,) int64, the part of its frame that each patch belongs to where a method cuts frames into parts, such
            as the nodes of a quadtree; None if it does not.
    """

    label: str
    plan: Plan
    lattice: Shape
    chosen: Plan
    parts: Tensor | None = None

    def then(self, label: str, plan: Plan, parts: Tensor | None = None) -> Stage:
        """Return the stage after a plan for these tokens; for the other arguments see the attributes."""
        whole = self.plan.then(replace(plan, known=None))
        if plan.shape is not None:
            return Stage(label, whole, plan.shape, Plan.keep_all(len(plan), plan.anchor.device, plan.shape), parts)
        return Stage(label, whole, self.lattice, self.chosen.then(plan), parts)

    @classmethod
    def start(cls, shape: Shape, device: torch.device | str = "cpu") -> Stage:
        """Return the stage at which every patch of a (T, H, W) video is a token."""
        every = Plan.keep_all(math.prod(shape), torch.device(device), shape)
        return cls("patches", every, shape, every)


@dataclass(frozen=True, eq=False)
class Trace:
    """What became of the patches of a video with one method.

    Attributes:
        name: The method's name in pictures.
        shape: (T, H, W) of the patches.
        stages: At least one; the last one shows what is left at the end of the language model.
        compressor: The method with its options; empty if not known.
        heat_maps: Numbers that the method saw.
    """

    name: str
    shape: Shape
    stages: tuple[Stage, ...]
    compressor: str = ""
    heat_maps: tuple[HeatMap, ...] = ()

    @classmethod
    def of(cls, name: str, plan: Plan, shape: Shape, heat_maps: Sequence[HeatMap] = ()) -> Trace:
        """Make a trace of one plan.

        Args:
            name: See the attributes.
            plan: From the patches to the tokens.
            shape: (T, H, W) of the patches.
            heat_maps: See the attributes.

        Raises:
            ValueError: If the plan or a heat map is for another number of patches.
        """
        counts = {"the plan": plan.num_sources} | {repr(heat.label): len(heat.values) for heat in heat_maps}
        for what, count in counts.items():
            if count != math.prod(shape):
                raise ValueError(f"{what} of {name} is for {count} patches, but {shape} are {math.prod(shape)}")
        stage = Stage.start(shape, plan.anchor.device).then("into the language model", plan)
        return cls(name, shape, (stage,), heat_maps=tuple(heat_maps))


def entries(plan: Plan) -> Rows:
    """Return the matrix of a plan as rows over its sources, on the CPU: none of weight 0, no source twice in a row."""
    flat = plan.flatten().rows
    row, sources, weights = (part.cpu() for part in (flat.row_of_entry(), flat.sources, flat.weights))
    pairs, place = (row * plan.num_sources + sources).unique(return_inverse=True)
    sums = weights.new_zeros(len(pairs)).index_add(0, place, weights)
    pairs, sums = pairs[sums != 0], sums[sums != 0]
    return Rows.of_entries(pairs // plan.num_sources, pairs % plan.num_sources, sums, len(plan))


def on_patches(plan: Plan, values: Tensor) -> Tensor:
    """Bring numbers (N,) of the tokens of a plan to its S sources, (S,) float32 on the CPU; NaN where there is none.

    A source of several tokens gets their mean, weighted by its weights in them.
    """
    rows = entries(plan)
    weights = rows.weights.abs()
    sums = torch.zeros(2, plan.num_sources)
    carried = torch.stack([weights * values.detach().float().cpu()[rows.row_of_entry()], weights])
    sums = sums.index_add(1, rows.sources, carried)
    return sums[0] / sums[1]


def owners(plan: Plan) -> Tensor:
    """Return the token in which each source has its largest weight, (S,) int64 on the CPU; -1 if it is in none."""
    rows = entries(plan)
    weights = rows.weights.abs()
    largest = torch.zeros(plan.num_sources).scatter_reduce(0, rows.sources, weights, "amax")
    is_largest = weights == largest[rows.sources]
    none, first = len(plan), rows.row_of_entry()[is_largest]
    owner = torch.full((plan.num_sources,), none).scatter_reduce(0, rows.sources[is_largest], first, "amin")
    return owner.where(owner < none, -1)
