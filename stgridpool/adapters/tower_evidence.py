"""Evidence from the vision part of native models, gathered in the same pass as the features.

While a block runs, the tower's attention goes through a function that notes queries and keys of the layers needed and
then calls the tower's own implementation; transformers lets every model choose such a function by name. Attention
weights are computed beside it, one block at a time. Queries and keys have rotary embedding in towers that use it. A
tower that runs with flash attention runs with SDPA in that pass, so that its features differ by rounding.

Letters: T frames, P patches per frame, N tokens, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from stgridpool.adapters.adapter import VIDEO, Adapter, Clips, EncodedVisual, Inputs
from stgridpool.adapters.repeated_frames import RepeatedFrames, encoded_once
from stgridpool.algorithms.patch_attention import attention_received, join_heads
from stgridpool.decoder.decoder import defining_module
from stgridpool.evidence import AttentionReceived, FrameVectors, Need, TowerKeys

NAMES = {"sdpa": "stgridpool_sdpa", "eager": "stgridpool_eager"}
"""Names under which the watching functions are registered; any other implementation is replaced by sdpa."""

Note = Callable[[nn.Module, Tensor, Tensor, float], None]
_watcher: ContextVar[Note | None] = ContextVar("watcher", default=None)


def tower_offers(adapter: Adapter, model: Any) -> Collection[type[Need]]:
    """Return the kinds of evidence that the vision part of a model can give."""
    watched = adapter.tower(model) is not None
    return {FrameVectors, AttentionReceived, TowerKeys} if watched else {FrameVectors}


def check_tower_needs(adapter: Adapter, model: Any, needs: Collection[Need]) -> None:
    """Check that the vision part has the layers that needs name.

    Raises:
        ValueError: If it has not.
    """
    for need in needs:
        if isinstance(need, AttentionReceived | TowerKeys):
            layers = layers_of_tower(adapter, model)
            if need.layer < -len(layers):
                raise ValueError(f"{need!r}: the vision tower of {model.config.model_type} runs {len(layers)} layers")
            if need.layer == 0:
                raise ValueError(f"{need!r}: native models compute nothing after their features; use a layer below 0")


def with_evidence(
    adapter: Adapter,
    model: Any,
    inputs: Inputs,
    kind: str,
    needs: Collection[Need],
    clips: Clips | None = None,
    reuse_frames: bool = True,
) -> list[EncodedVisual]:
    """Encode visuals, and gather evidence about them.

    Args:
        adapter: The adapter for `model`.
        model: A native model of transformers.
        inputs: The output of its processor.
        kind: "video" or "image".
        needs: The needs of the method; those that the vision part cannot provide are ignored.
        clips: See `stgridpool.adapters.adapter.Clips`.
        reuse_frames: Whether frames of videos that equal an earlier one are encoded once; see `RepeatedFrames`.

    Raises:
        ValueError: If visuals of this kind do not go through the tower.
    """
    of_layers = [need for need in needs if isinstance(need, AttentionReceived | TowerKeys)]
    found: dict[Need, list[Tensor]] = {need: [] for need in of_layers}

    def note(module: nn.Module, queries: Tensor, keys: Tensor, scale: float) -> None:
        for need in wanted.get(module, ()):
            found[need].append(_measured(need, queries, keys, scale))

    wanted: dict[nn.Module, list[Need]] = {}
    for need in of_layers:
        for module in layers_of_tower(adapter, model)[need.layer].modules():
            wanted.setdefault(module, []).append(need)
    with ExitStack() as stack:
        repeated = RepeatedFrames()
        tower = adapter.tower(model)
        if reuse_frames and kind == VIDEO and adapter.encodes_frames_alone and tower is not None:
            repeated = stack.enter_context(encoded_once(tower, adapter.is_frame(model, inputs, clips)))
        if of_layers:
            stack.enter_context(_watching(tower, note))
        visuals = adapter.encode(model, inputs, clips) if kind == VIDEO else adapter.encode_images(model, inputs)
    if any(not parts for parts in found.values()):
        raise ValueError(f"attention of a vision part for {kind}s of {model.config.model_type} is not gathered")
    every = {need: repeated.every_row(torch.cat(parts)) for need, parts in found.items()}
    rows = {need: adapter.tower_rows(model, inputs, kind, values, visuals) for need, values in every.items()}
    reused = repeated.of_visuals([len(visual.tokens) for visual in visuals])
    means = [need for need in needs if isinstance(need, FrameVectors)]
    return [
        replace(
            visual,
            evidence={need: parts[number] for need, parts in rows.items()}
            | {need: _frame_means(visual) for need in means},
            reused=reused[number],
        )
        for number, visual in enumerate(visuals)
    ]


def rows_by_visual(rows: Tensor, visuals: Sequence[EncodedVisual]) -> list[Tensor]:
    """Split rows (n, ...) of a tower in the order of its patches among visuals: (N, ...) each.

    If a tower merges k consecutive patches into each token, the mean of their rows stands for the token.

    Raises:
        ValueError: If the number of rows is not a multiple of the number of tokens.
    """
    counts = [(visual.tokens if visual.patches is None else visual.patches).shape[:3].numel() for visual in visuals]
    if len(rows) % sum(counts):
        raise ValueError(
            f"the vision tower has {len(rows)} patches, which is not a multiple of its {sum(counts)} tokens"
        )
    return list(rows.unflatten(0, (sum(counts), -1)).mean(1).split(counts))


def layers_of_tower(adapter: Adapter, model: Any) -> list[nn.Module]:
    """Return the layers of the vision part up to the one whose output is used."""
    tower: Any = adapter.tower(model)
    lists = [list(part) for part in tower.modules() if isinstance(part, nn.ModuleList)]
    layers = max(lists, key=len)
    used = getattr(model.config, "vision_feature_layer", None)
    return layers[: len(layers) + 1 + used] if isinstance(used, int) and used < 0 else layers


def _measured(need: Need, queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Compute what `need` names from queries and keys (B, heads, L, d) of one call: (B * L, ...)."""
    if getattr(need, "joined", False):
        scale = scale * keys.shape[1] ** -0.5
        queries, keys = join_heads(queries), join_heads(keys)
    if isinstance(need, TowerKeys):
        return keys.mean(1, dtype=torch.float32).flatten(0, 1)
    return attention_received(queries, keys, scale).flatten()


def _frame_means(visual: EncodedVisual) -> Tensor:
    """Return the mean of the tokens of each frame, as the language model would read them: (T, D) float32."""
    maps = visual.tokens if visual.patches is None else visual.patches
    return maps.flatten(1, 2).mean(1, dtype=torch.float32)


@contextmanager
def _watching(tower: Any, note: Note) -> Iterator[None]:
    """Call `note` for every attention of a tower in the block; its implementation is restored afterwards."""
    own = tower.config._attn_implementation
    name = NAMES.get(own, NAMES["sdpa"])
    AttentionInterface.register(NAMES["sdpa"], _watched_sdpa)
    AttentionInterface.register(NAMES["eager"], _watched_eager)
    AttentionMaskInterface.register(NAMES["sdpa"], sdpa_mask)
    AttentionMaskInterface.register(NAMES["eager"], eager_mask)
    with ExitStack() as restored:
        restored.callback(_watcher.reset, _watcher.set(note))
        restored.callback(tower.set_attn_implementation, own)
        tower.set_attn_implementation(name)
        yield


def _watched_sdpa(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kw: Any) -> Any:
    _report(module, query, key, kw)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kw)


def _watched_eager(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kw: Any) -> Any:
    _report(module, query, key, kw)
    return defining_module(module).eager_attention_forward(module, query, key, value, attention_mask, **kw)


def _report(module: nn.Module, query: Tensor, key: Tensor, kw: dict[str, Any]) -> None:
    note, scale = _watcher.get(), kw.get("scaling")
    if note is not None:
        note(module, query, key, query.shape[-1] ** -0.5 if scale is None else float(scale))
