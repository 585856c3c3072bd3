"""compress: a block in which a native model reads fewer visual tokens, and after which nothing of it has changed."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from stgridpool.adapters.adapter import Adapter, Clips
from stgridpool.adapters.compress_inputs import compress_with
from stgridpool.adapters.continuing import following
from stgridpool.adapters.families import adapter_for
from stgridpool.adapters.generation import Restored, check_arguments, shifted_lengths
from stgridpool.adapters.method import Method
from stgridpool.adapters.names import POLICIES
from stgridpool.adapters.prompt import CompressedPrompt
from stgridpool.compressor import POSITIONS, Compressor
from stgridpool.decoder.kv_cache import CACHE_ARGUMENT, find_cache
from stgridpool.decoder.steps import CompressedPrompts
from stgridpool.options import choice
from stgridpool.retention import DEFINITIONS


def compress(
    model: Any,
    compressor: Compressor | str | None,
    retention: float | None = None,
    of: str = DEFINITIONS[0],
    positions: str = "reference",
    images: bool = False,
    clips: Clips | None = None,
    reuse_frames: bool = True,
    **options: Any,
) -> Compressing:
    """Compress the videos of all prompts that a native model of transformers gets in a ``with`` block.

    In the block ``model.generate(**inputs)`` and ``model(**inputs)`` take the unmodified output of the processor.
    ``generate`` returns the original prompts followed by the answers, so that answers are cut off as usual; the logits
    of a forward have the length of the compressed prompts.

    Args:
        model: A model of a supported family, see `stgridpool.adapters.families`.
        compressor: The method, its name, or None, which leaves the tokens of the model's own pooling, as "none" does.
        retention: Fraction of the unmodified model's tokens to keep, above 0 and at most 1; None for the method's own
            budget.
        of: The definition of retention, one of `stgridpool.retention.DEFINITIONS`.
        positions: Of the whole prompt, see `stgridpool.adapters.compress_inputs`. Methods inside the language model
            have an option of the same name; to set it, pass ``build_compressor("fastv", positions="merge")``.
        images: Whether to compress images as well; otherwise they are left unchanged.
        clips: See `stgridpool.adapters.adapter.Clips`.
        reuse_frames: See `stgridpool.adapters.compress_inputs`.
        **options: Further options of the method, if `compressor` is a name.

    Raises:
        ValueError: If the model is not supported, an option is out of its range, or the model cannot give the method
            what it needs.
    """
    if positions in POSITIONS and positions not in POLICIES:
        raise ValueError(
            f"positions of the prompt must be one of {', '.join(POLICIES)}, got {positions!r}: if these are to be the "
            f"method's own, pass build_compressor(NAME, positions={positions!r})"
        )
    choice("positions", positions, POLICIES)
    adapter = adapter_for(model)
    method = Method.of_model(adapter, model, compressor, retention, of, **options)
    return Compressing(adapter, model, method, positions, images, clips, reuse_frames)


class Compressing:
    """A block that `compress` made. It puts ``generate`` and ``forward`` on the instance and takes them off again.

    Attributes:
        last: The prompts of the latest call in compressed form: their plans, counts and positions; None before one.
    """

    def __init__(
        self,
        adapter: Adapter,
        model: Any,
        method: Method,
        positions: str,
        images: bool,
        clips: Clips | None,
        reuse_frames: bool,
    ) -> None:
        self._adapter, self._model, self._method = adapter, model, method
        self._positions, self._images, self._clips, self._reuse_frames = positions, images, clips, reuse_frames
        self._stock: dict[str, Callable[..., Any]] = {}
        self._before: dict[str, Any] = {}  # what the instance itself had under these names
        self._is_generating = False
        self._cache: weakref.ref[Any] | None = None  # of the latest forward with videos
        self._num_removed = 0  # positions of its prompts that the first layer does not hold
        self._plain: weakref.WeakSet[Any] = weakref.WeakSet()  # caches of prompts without videos
        self._inside: CompressedPrompts | None = None
        self.last: CompressedPrompt | None = None

    def __enter__(self) -> Compressing:
        if self._stock:
            raise RuntimeError("this block is active already; call stgridpool.compress again for another one")
        if hasattr(vars(self._model).get("forward"), "is_compressing"):
            raise RuntimeError(
                "the model is inside a block of stgridpool.compress already; instead of nesting, join methods with +"
            )
        self._stock = {"generate": self._model.generate, "forward": self._model.forward}
        self._before = {name: vars(self._model)[name] for name in self._stock if name in vars(self._model)}
        for name, ours in (("generate", self._generate), ("forward", self._forward)):
            setattr(self._model, name, _like(self._stock[name], ours))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self._stock:
            delattr(self._model, name)
            if name in self._before:
                setattr(self._model, name, self._before[name])
        self._stock, self._before, self._cache, self._inside = {}, {}, None, None
        self._plain.clear()

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        stock = self._stock["generate"]
        arguments = _bound(stock, args, kwargs)
        inputs = arguments.pop("inputs", None)
        if inputs is not None:
            arguments["input_ids"] = inputs
        has_visuals, cache = self._has_visuals(arguments), find_cache((), arguments)
        if has_visuals or cache not in self._plain:
            self._check_new(cache)
        self._is_generating = True
        try:
            output = self._answer(stock, arguments) if has_visuals else stock(**arguments)
        finally:
            self._is_generating = False
        if not has_visuals and cache is not None:
            self._plain.add(cache)
        return output

    def _answer(self, stock: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        config = self._model.generation_config
        check_arguments(arguments, config, arguments.get("generation_config"))
        prompt = self._compressed(arguments)
        restored = Restored(prompt)
        arguments = {**self._without_inputs(arguments), **prompt.inputs}
        arguments = restored.arguments(shifted_lengths(arguments, config, prompt))
        with prompt.prefilling(self._adapter, self._model):
            return restored.output(stock(**arguments))

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        stock = self._stock["forward"]
        if self._is_generating:
            return stock(*args, **kwargs)
        arguments = _bound(stock, args, kwargs)
        if not self._has_visuals(arguments):
            return self._continue(stock, arguments)
        check_arguments(arguments)
        self._check_new(find_cache((), arguments))
        prompt = self._compressed(arguments)
        arguments = {**self._without_inputs(arguments), **prompt.forward_inputs}
        arguments.pop("input_ids", None)
        with prompt.prefilling(self._adapter, self._model) as self._inside:
            output = stock(**arguments)
        cache = _cache_of(output)
        self._cache = None if cache is None else weakref.ref(cache)
        self._num_removed = 0 if cache is None else prompt.visual_mask.shape[1] - cache.get_seq_length()
        return output

    def _continue(self, stock: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """Run a forward without videos; if it continues compressed prompts, at the positions after them."""
        cache, prompt = find_cache((), arguments), self.last
        length = 0 if cache is None else cache.get_seq_length()
        if not length:
            output = stock(**arguments)
            if (cache := _cache_of(output)) is not None:
                self._plain.add(cache)
            return output
        if prompt is None or cache in self._plain:
            return stock(**arguments)
        if self._cache is None or cache is not self._cache():
            raise ValueError(
                f"{CACHE_ARGUMENT} is not the one of the latest forward with videos in this block, so the positions of "
                "tokens after it are unknown; continue that one, or leave the block"
            )
        with ExitStack() as stack:
            if self._inside is not None and prompt.inside is not None:
                stack.enter_context(prompt.inside.continuing(self._inside, is_prompt=False))
            return stock(**following(prompt, length + self._num_removed, arguments))

    def _compressed(self, arguments: Mapping[str, Any]) -> CompressedPrompt:
        self._cache = self._inside = None  # those of an earlier prompt: a forward may no longer continue it
        options = self._positions, self._images, self._clips, self._reuse_frames
        self.last = compress_with(self._method, self._adapter, self._model, arguments, *options)
        return self.last

    def _has_visuals(self, arguments: Mapping[str, Any]) -> bool:
        names = [self._adapter.video_inputs[0], *(self._adapter.image_inputs[:1] if self._images else [])]
        return any(arguments.get(name) is not None for name in (*names, "mm_encoder_outputs"))

    def _without_inputs(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments that do not describe the prompt; those have been rewritten."""
        used_up = {*self._adapter.video_inputs, *self._adapter.position_inputs, *self._adapter.image_inputs}
        return {name: value for name, value in arguments.items() if name not in used_up}

    def _check_new(self, cache: Any) -> None:
        length = 0 if cache is None else cache.get_seq_length()
        if length:
            raise ValueError(
                f"{CACHE_ARGUMENT} holds {length} positions; in this block prompts must begin with an empty cache"
            )


def _cache_of(output: Any) -> Any:
    """Return the cache in the output of a forward; None if there is none."""
    return find_cache((), dict(output)) if isinstance(output, Mapping) else find_cache(output, {})


def _like(stock: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with the signature of `stock` that calls `ours`."""

    @functools.wraps(stock)
    def call(*args: Any, **kwargs: Any) -> Any:
        return ours(*args, **kwargs)

    call.is_compressing = True  # type: ignore[attr-defined]
    return call


def _bound(stock: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name."""
    signature = inspect.signature(stock)
    bound = dict(signature.bind_partial(*args, **kwargs).arguments)
    rest = [name for name, one in signature.parameters.items() if one.kind is inspect.Parameter.VAR_KEYWORD]
    for name in rest:
        bound |= bound.pop(name, {})
    return bound
