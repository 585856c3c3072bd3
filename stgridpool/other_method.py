"""OtherMethod: a method that calls another one, by its name and options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self

from stgridpool.compressor import Compressor, Step
from stgridpool.evidence import Need
from stgridpool.options import text
from stgridpool.scorer import BUDGETS, Budgeted


@dataclass(frozen=True)
class OtherMethod(Compressor):
    """Base of methods that act where another method acts, and need what it needs.

    Attributes:
        given: Options that this method decides for the other one, with some allowed value; class attribute.
        method: Name of a method that acts once.
        options: Its options, as a mapping or as pairs of name and value.

    Raises:
        ValueError: If there is no such method or option, or the method acts several times or before the vision tower.
    """

    needs_maps: ClassVar[bool] = False
    given: ClassVar[dict[str, Any]] = {}

    method: str = "norm_topk"
    options: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        text("method", self.method)
        object.__setattr__(self, "options", _pairs(self.options))
        steps = self.other.steps()
        if len(steps) != 1:
            raise ValueError(f"method must act once, and {self.method} acts {len(steps)} times")
        if steps[0].is_before_features:
            raise ValueError(f"method must act on tokens, and {self.method} acts before the vision tower or in it")
        object.__setattr__(self, "needs_maps", self.other.needs_maps)

    @cached_property
    def other(self) -> Compressor:
        """The other method, with values of `given`.

        Raises:
            ValueError: If it cannot be built, or does not take what this method decides.
        """
        try:
            return self.build(**self.given)
        except ValueError as error:
            if not self.given:
                raise
            decided = ", ".join(self.given)
            raise ValueError(f"{type(self).__name__} decides {decided} of {self.method}: {error}") from error

    def build(self, **given: Any) -> Compressor:
        """Build the other method with the options that this one decides."""
        from stgridpool.compressors import build_compressor  # noqa: PLC0415  # it imports this module

        return build_compressor(self.method, **{**dict(self.options), **given})

    @property
    def needs(self) -> frozenset[Need]:
        """Return the other method's needs."""
        return self.other.needs

    def steps(self) -> tuple[Step, ...]:
        """Return where the other method acts."""
        return (replace(self.other.steps()[0], compressor=self),)

    def for_depth(self, num_layers: int) -> Self:
        """See `Compressor.for_depth`."""
        return self.around(self.other.for_depth(num_layers))

    def around(self, other: Compressor) -> Self:
        """Return this method around another object of the same other method."""
        names = [field.name for field in fields(other) if field.init and field.name not in self.given]
        return replace(self, options=tuple((name, getattr(other, name)) for name in names))


def _pairs(options: object) -> tuple[tuple[str, Any], ...]:
    """Return options as pairs of name and value.

    Raises:
        ValueError: If they are neither a mapping nor such pairs.
    """
    pairs = tuple(options.items()) if isinstance(options, Mapping) else options
    if not isinstance(pairs, list | tuple) or not all(_is_pair(pair) for pair in pairs):
        raise ValueError(f"options must be a mapping, or pairs of name and value, got {options!r}")
    return tuple((name, _hashable(value)) for name, value in pairs)


def _is_pair(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str)


def _hashable(value: Any) -> Any:
    """Return the value of an option with tuples for lists, and for mappings, which only `OtherMethod.options` are."""
    if isinstance(value, Mapping):
        return tuple((name, _hashable(one)) for name, one in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def budgeted(method: Compressor) -> Budgeted | None:
    """Return the method that meets a budget exactly: `method`, or the one that it calls; None if there is none."""
    if isinstance(method, Budgeted):
        return method
    return budgeted(method.other) if isinstance(method, OtherMethod) else None


def with_budget(method: Compressor, **budget: float) -> Compressor:
    """Return the method with another budget, which is that of the method that it calls if it has none itself.

    Args:
        method: One for which `budgeted` returns a method.
        budget: One of `stgridpool.scorer.BUDGETS`.

    Raises:
        TypeError: If there is no budget to set.
    """
    if isinstance(method, Budgeted):
        changes: dict[str, Any] = {**dict.fromkeys(BUDGETS), **budget}
        return replace(method, **changes)
    if not isinstance(method, OtherMethod):
        raise TypeError(f"{method!r} must have a budget, or call a method that has one")
    return method.around(with_budget(method.other, **budget))
