"""Methods of other packages, called by ``module:Class`` or by the name of an entry point."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from stgridpool.compressor import Compressor, is_frozen_dataclass

GROUP = "stgridpool.compressors"
"""Group of entry points: the name of a method, and the ``module:Class`` that it stands for."""


def find_method(name: str) -> type[Compressor] | None:
    """Return the class of the method that another package calls `name`, or None if there is no such method.

    Args:
        name: ``module:Class``, or an entry point of the group ``stgridpool.compressors``.

    Raises:
        ValueError: If the module cannot be imported, has no such class, or the class is not a method; if installed
            packages give the name to different classes.
    """
    places = {name} if ":" in name else {point.value for point in entry_points(group=GROUP) if point.name == name}
    if not places:
        return None
    place, *others = sorted(places)
    if others:
        raise ValueError(
            f"installed packages give the name {name!r} to different methods: use {place} or {' or '.join(others)}"
        )
    module, _, attribute = place.partition(":")
    try:
        import_module("torch.autograd")  # a process that only checks may have a stand-in for torch, which refuses this
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:  # ValueError: an empty module name
        raise ValueError(f"compressor {name!r}: {place} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Compressor) and is_frozen_dataclass(found)):
        raise ValueError(
            f"compressor {name!r}: {place} must be a dataclass derived from stgridpool.Compressor, and be "
            "decorated itself with @dataclass(frozen=True)"
        )
    return found


def installed_names() -> list[str]:
    """Return the names that installed packages have given their methods."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def foreign_code(compressor: Compressor) -> list[Path]:
    """Return the code of other packages that a method comes from: the folder of each package, or the file of a module.

    What answers were computed with is known by it, as our own code is.
    """
    from stgridpool.all_frames import AllFrames  # noqa: PLC0415  # these import the methods, which import this module
    from stgridpool.other_method import OtherMethod  # noqa: PLC0415

    methods = [step.compressor for step in compressor.steps()]
    for method in methods:  # which grows
        methods += [method.method] if isinstance(method, AllFrames) else []
        methods += [method.other] if isinstance(method, OtherMethod) else []
    modules = {type(method).__module__.partition(".")[0] for method in methods}
    found = [sys.modules[name] for name in sorted(modules - {__name__.partition(".")[0]})]
    places = [getattr(module, "__path__", None) or [module.__file__] for module in found]
    return [Path(str(place)) for several in places for place in several]
