"""Watched: a method that acts as it always does and remembers what it saw and decided, for pictures.

Letters: S patches, N tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from stgridpool.adapters.native_video import NativeVideo
from stgridpool.compressor import Compressor, Step, compress_tokens, early_steps
from stgridpool.compressors.sttm.sttm import STTM
from stgridpool.evidence import (
    AttentionReceived,
    ClassAttention,
    Evidence,
    Need,
    PoolHeadAttention,
    QueryAttention,
)
from stgridpool.model import Video, VideoModel
from stgridpool.plan import Plan, Shape, to_device
from stgridpool.provenance import plan_of_frames
from stgridpool.rows import Rows
from stgridpool.show.trace import HeatMap, Stage, Trace, on_patches, owners
from stgridpool.video_tokens import VideoTokens

NORM = "norm"


@dataclass(frozen=True, eq=False)
class Sight:
    """What one step saw and decided.

    Attributes:
        plan: Its decision.
        numbers: (N,) float32 of the tokens that it saw, by what they are.
        nodes: (N,) int64, the node of a quadtree that each of them belongs to; None without one.
    """

    plan: Plan
    numbers: dict[str, Tensor]
    nodes: Tensor | None


@dataclass(frozen=True, eq=False, repr=False)
class Watched(Compressor):
    """A method that remembers what it saw and decided. It stands in for the method anywhere.

    Steps before the features (`Step.is_before_features`) are left as they are.

    Attributes:
        method: The method.
        seen: What its steps saw since it was made, in the order in which they ran.
    """

    method: Compressor
    seen: list[Sight] = field(default_factory=list)

    def __repr__(self) -> str:
        return repr(self.method)

    @property
    def counts_from(self) -> int:
        """See the base class; as for the method."""
        return self.method.counts_from

    @property
    def needs(self) -> frozenset[Need]:
        """See the base class; as for the method."""
        return self.method.needs

    def for_depth(self, num_layers: int) -> Watched:
        """See the base class; as for the method."""
        return Watched(self.method.for_depth(num_layers), self.seen)

    def planned_shape(self, shape: Shape) -> Shape | None:
        """See the base class; as for the method."""
        return self.method.planned_shape(shape)

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """See the base class; as for the method."""
        return self.method.planned_count(shape, total)

    def values(self, features: Tensor, shape: Shape, plan: Plan) -> Tensor:
        """See the base class; as for the method."""
        return self.method.values(features, shape, plan)

    def steps(self) -> tuple[Step, ...]:
        """Return the steps of the method, each of them watched."""
        return tuple(step if step.is_before_features else self._watched(step) for step in self.method.steps())

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Let the method decide, and remember it."""
        plan = self.method.plan(tokens, evidence)
        numbers = {NORM: tokens.features.detach().float().norm(dim=-1)}
        for need, values in evidence.items():
            label = _label(need)
            if label is not None:
                numbers[label] = values.detach().float().reshape(len(tokens), -1).mean(dim=1)
        nodes = self.method.forest(tokens.maps()).heads if isinstance(self.method, STTM) else None
        self.seen.append(Sight(replace(plan, known=None).to("cpu"), numbers, nodes))
        return plan

    def _watched(self, step: Step) -> Step:
        own = step.compressor is self.method
        return replace(step, compressor=self if own else Watched(step.compressor, self.seen))


def traced(name: str, watched: Watched, model: VideoModel, video: Video, evidence: Evidence, num_encoded: int) -> Trace:
    """Trace the tokens of a video that a model has compressed, and prefilled if the method acts inside it.

    Args:
        name: The method's name in pictures.
        watched: The method, which the model must have as its compressor.
        model: The model.
        video: The compressed video.
        evidence: About the video; it must say how frames were changed if the method changes frames.
        num_encoded: Number of frames that left the vision tower.
    """
    sights = iter(watched.seen)
    shape, stage = _beginning(watched.method, model, video, evidence, num_encoded)
    heat_maps: list[HeatMap] = []
    for step in _front(model, video):
        if isinstance(step.compressor, Watched):
            sight = next(sights)
            heat_maps += _heat_maps(sight, stage, "")
            stage = stage.then("into the language model", sight.plan, _parts(sight, stage))
        else:
            stage = stage.then("into the language model", _plan_of_pooling(step.compressor, stage.lattice))
    stages = [stage]
    decided = [] if model.inside is None or model.inside.last is None else model.inside.last.plans[0]
    for step, plans in zip(() if model.inside is None else model.inside.steps, decided, strict=True):
        sight, before = next(sights), stages[-1]
        heat_maps += _heat_maps(sight, before, f" in layer {step.place}")
        stages.append(before.then(f"from layer {step.place} on", plans[0].to("cpu"), _parts(sight, before)))
    return Trace(name, shape, tuple(stages), repr(watched), tuple(heat_maps))


def _beginning(
    method: Compressor, model: VideoModel, video: Video, evidence: Evidence, num_encoded: int
) -> tuple[Shape, Stage]:
    """Return the lattice of the patches, and the tokens that the first step after the vision tower sees."""
    if isinstance(video, NativeVideo):
        return _native_beginning(model, video)
    shape, early = video.source_shape, early_steps(method)
    stage = Stage.start(shape)
    if not early:
        return shape, stage
    encoded = (num_encoded, *shape[1:])
    about = to_device(dict(evidence), torch.device("cpu"))
    _, plan = plan_of_frames(early, about, VideoTokens(torch.zeros(math.prod(encoded), 1), encoded))
    return shape, stage.then(stage.label, plan)


def _native_beginning(model: VideoModel, video: NativeVideo) -> tuple[Shape, Stage]:
    """Return the same for a native model, whose own pooling runs before methods that do not replace it."""
    visual, shape = video.compressed.run.visual, video.source_shape
    stage = Stage.start(shape)
    if visual.patches is not None:
        pooled = stage.then(stage.label, _plan_of_pooling(model.own_pooling(), shape))
        return shape, stage if video.compressed.from_patches else pooled
    if visual.kept is not None:
        return shape, stage.then(stage.label, Plan.keep(visual.kept.cpu(), math.prod(shape)))
    side = math.isqrt(shape[2] - 1)
    if shape[1] == 1 and side > 1 and side**2 == shape[2] - 1:
        return _behind_class_tokens(shape[0], side)
    return shape, stage


def _behind_class_tokens(frames: int, side: int) -> tuple[Shape, Stage]:
    """Return the same where a class token stands before the square of patches of every frame, as in Video-LLaVA.

    A class token is drawn as the mean of its frame.
    """
    area = side * side
    own = torch.arange(area)
    first = torch.arange(frames)[:, None] * area  # (T, 1)
    row = torch.cat([torch.zeros_like(own), own + 1])  # of a frame: its class token, and its patches
    row = (torch.arange(frames)[:, None] * (area + 1) + row).flatten()
    sources = (first + own.repeat(2)).flatten()
    weights = torch.ones(2, area) / torch.tensor([[area], [1]])
    rows = Rows.of_entries(row, sources, weights.flatten().repeat(frames), frames * (area + 1))
    anchor = torch.cat([first, first + own], dim=1).flatten()
    shape = (frames, side, side)
    return shape, Stage.start(shape).then("patches", Plan(rows, frames * area, anchor))


def _front(model: VideoModel, video: Video) -> list[Step]:
    """Return the steps after the vision tower and before the language model that made the video's plan."""
    front = [step for step in model.front_steps if not step.is_before_features]
    if isinstance(video, NativeVideo) and not video.compressed.from_patches:
        return [step for step in front if isinstance(step.compressor, Watched)]
    return front


def _plan_of_pooling(pooling: Compressor, shape: Shape) -> Plan:
    """Return the plan of a pooling that decides by the lattice alone."""
    return compress_tokens(pooling, VideoTokens(torch.zeros(math.prod(shape), 1), shape), {})[1]


def _heat_maps(sight: Sight, stage: Stage, where: str) -> list[HeatMap]:
    """Return the numbers of the tokens at `stage` as heat maps; norms change from layer to layer, and say `where`."""
    labels = {label: label + where * (label == NORM) for label in sight.numbers}
    return [HeatMap(labels[label], on_patches(stage.plan, values)) for label, values in sight.numbers.items()]


def _parts(sight: Sight, stage: Stage) -> Tensor | None:
    """Return the node of each patch, (S,) int64, -1 where it is the source of no token; None without nodes."""
    if sight.nodes is None:
        return None
    owner = owners(stage.plan)
    return sight.nodes.cpu()[owner].where(owner >= 0, -1)


def _label(need: Need) -> str | None:
    """Return what evidence is called in pictures; None for what is not attention."""
    if isinstance(need, AttentionReceived | ClassAttention):
        kind = "attention received" if isinstance(need, AttentionReceived) else "attention of the class token"
        return f"{kind}, tower layer {need.layer}"
    if isinstance(need, PoolHeadAttention):
        return "attention of the pooling head"
    if isinstance(need, QueryAttention):
        rows = {"last": "the last token", "question": "the question", "relevant": "relevant words"}[need.rows]
        return f"attention of {rows}, layer {need.layer}"
    return None
