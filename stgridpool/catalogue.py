"""Descriptions of methods: place, needs, budget and options, read from their classes and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, fields
from typing import Any

from stgridpool.budget import Budget
from stgridpool.compressor import PATCHES, Compressor, EncoderLayer
from stgridpool.compressors import COMPRESSORS, build_compressor
from stgridpool.elsewhere import find_method, installed_names
from stgridpool.suggestion import suggestion
from stgridpool.table_presets import table_presets

BUDGETS = ("retention", "tokens", "tokens_per_frame", "layer_average", "keep", "pruning_rate", "attention_share")
"""Options of which one sets how many tokens a method keeps."""
INNER_BUDGET = "inner_retention"
"""Option that sets how many of them the inner half of a method keeps."""

FRAMES = (64, 27, 27)
"""The lattice for which tokens are counted: 64 frames of LLaVA-Video."""

_PLACES = {PATCHES: "pooling"}
_SECTION = re.compile(r"^(Source|Attributes|Raises|Args|Returns):", re.MULTILINE)
_ENTRY = re.compile(r" {4}(\w+(?:, \w+)*): ")
_SEE = re.compile(r"See `(\w+)(?:\.\w+)?`")


@dataclass(frozen=True)
class Option:
    """An option of a method.

    Attributes:
        name: Its name.
        default: Its value if the user sets nothing, as JSON would hold it.
        text: What it does, its range and unit, from the docstring.
    """

    name: str
    default: Any
    text: str


@dataclass(frozen=True)
class Entry:
    """A method as the catalogue shows it.

    Attributes:
        name: Its name, as for `build_compressor`.
        summary: What it does, in one sentence.
        idea: The paragraphs of its docstring that follow.
        source: Paper or specification; empty for baselines of ours.
        where: Where it acts, see `where`.
        query_aware: Whether it looks at the question.
        needs: The evidence that it asks a model for, with its default options.
        budget: What sets its number of tokens.
        options: All options, in order.
        presets: Values of the option `preset`, those of published comparisons last.
    """

    name: str
    summary: str
    idea: str
    source: str
    where: str
    query_aware: bool
    needs: tuple[str, ...]
    budget: str
    options: tuple[Option, ...]
    presets: tuple[str, ...]


def describe(name: str) -> Entry:
    """Describe the method called `name`, with its default options.

    Raises:
        ValueError: If there is no such method.
    """
    kind = COMPRESSORS.get(name) or find_method(name)
    if kind is None:
        raise ValueError(f"there is no compressor {name!r}{suggestion(name, [*COMPRESSORS, *installed_names()])}")
    method, sections = build_compressor(name), _sections(kind)
    summary, _, idea = sections[""].partition("\n\n")
    return Entry(
        name=name,
        summary=_one_line(summary),
        idea=idea.replace("``", "`"),
        source=_one_line(sections.get("Source", "").split("\n\n")[0]),
        where=where(method),
        query_aware=method.query_aware,
        needs=tuple(sorted(map(repr, method.needs))),
        budget=budget(method),
        options=tuple(Option(field.name, getattr(method, field.name), _text(kind, field)) for field in _options(kind)),
        presets=(*getattr(kind, "PRESETS", ()), *table_presets(name)),
    )


def where(method: Compressor) -> str:
    """Name where a method acts, for example "tokens, layer 20".

    "frames" is before the vision tower, "tower layers -5, -3" after layers of it, counted back from the one that
    is used as features, "pooling" in place of the checkpoint's own, "tokens" after it, and "layer 20" before that
    layer of the language model.
    """
    places = [step.place for step in method.steps()]
    outside = dict.fromkeys(_PLACES.get(place, place) for place in places if isinstance(place, str))
    in_tower = _layers("tower layer", [place.layer for place in places if isinstance(place, EncoderLayer)])
    inside = _layers("layer", [place for place in places if isinstance(place, int)])
    return ", ".join([*in_tower, *outside, *inside])


def _layers(word: str, layers: list[int]) -> list[str]:
    return [f"{word}{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}"] if layers else []


def budget(method: Compressor) -> str:
    """Say what sets the number of tokens: the options with their values, or else the count for `FRAMES`."""
    names = [field.name for field in _options(type(method))]
    given = {name: getattr(method, name) for name in names if name in BUDGETS}
    words = " or ".join(name if value is None else f"{name} ({_short(value)})" for name, value in given.items())
    if not given or all(value is None for value in given.values()):
        words += ", else " * bool(given) + _left(method)
    return words + (f"; {INNER_BUDGET} ({_short(getattr(method, INNER_BUDGET))})" if INNER_BUDGET in names else "")


def _left(method: Compressor) -> str:
    frames, height, width = FRAMES
    left = method.planned_count(FRAMES)
    return "the tokens decide" if left is None else f"{left / frames:.4g} of {height}x{width} per frame"


def _options(kind: type[Compressor]) -> list[Field[Any]]:
    return [field for field in fields(kind) if field.init]


def _sections(kind: type) -> dict[str, str]:
    """Split a class docstring into its sections by name; the beginning has the name ""."""
    parts = _SECTION.split(inspect.cleandoc(kind.__dict__.get("__doc__") or ""))
    return {"": parts[0].strip()} | {
        name: text.strip("\n") for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def _attributes(kind: type) -> dict[str, str]:
    """Return what the docstring of a class says of each attribute."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in _sections(kind).get("Attributes", "").replace("``", "`").splitlines():
        entry = _ENTRY.match(line)
        names = entry[1].split(", ") if entry else names
        text = line[entry.end() :] if entry else line
        found |= {name: f"{found.get(name, '')} {text.strip()}".strip() for name in names}
    return found


def _text(kind: type[Compressor], field: Field[Any]) -> str:
    """Say what an option does; where the docstring refers to another class, that one's words take its place."""
    first, *others = [*_texts(kind, field.name), ""]
    if not first.startswith("See `"):
        return first
    own = _SEE.sub("", first).strip(" .;")
    return " ".join([*([f"{own[0].upper()}{own[1:]}."] if own else []), *others[:1]])


def _texts(kind: type, option: str, seen: frozenset[type] = frozenset()) -> Iterator[str]:
    """Yield what a class, those that its docstring refers to, and its bases say of an option, in this order."""
    for base in kind.__mro__:
        text = _attributes(base).get(option) if base not in seen else None
        if text is None:
            continue
        yield text
        for name in _SEE.findall(text):
            if (other := _classes().get(name)) is not None and other is not base:
                yield from _texts(other, option, seen | {base})


def _classes() -> Mapping[str, type]:
    """Return the classes that docstrings of methods refer to, by name: methods, their bases, and `Budget`."""
    known = [base for kind in COMPRESSORS.values() for base in kind.__mro__]
    return {kind.__name__: kind for kind in [*known, Budget]}


def _one_line(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace("'", "")
