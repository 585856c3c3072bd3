"""Checks without torch, whose import takes three seconds.

Compressors check their options and count their tokens in whole numbers; their modules import torch for what they do to
tensors. In a process that only checks, a stand-in takes torch's place: it has the names without which these modules
cannot be imported, and nothing that computes. Whoever asks it for more gets `TorchNeeded`, and the process starts over
with torch, so that no result depends on the stand-in.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

DTYPES = ("bfloat16", "float16", "float32")


class TorchNeeded(BaseException):
    """Raised where torch itself is needed; no handler of errors catches it."""


class _Missing(ModuleType):
    """A module, function or value of torch that has only the names it was given."""

    def __init__(self, name: str, **names: Any) -> None:
        super().__init__(name)
        self.__dict__.update(names, __spec__=ModuleSpec(name, None))

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # Python itself looks for these
            raise AttributeError(f"{self.__name__} has no {name}")
        raise TorchNeeded(f"{self.__name__}.{name}")

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise TorchNeeded(self.__name__)


class _Class:
    """A class of torch, which has no instances here."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise TorchNeeded("an instance of a class of torch")


class _Mode:
    """A mode such as `torch.no_grad`, as a decorator: what it decorates needs torch."""

    def __init__(self, *_: Any) -> None:
        pass

    def __call__(self, function: Callable[..., Any]) -> _Missing:
        return _Missing(function.__qualname__)

    def __enter__(self) -> NoReturn:
        raise TorchNeeded("a mode of torch")

    def __exit__(self, *_: object) -> None:
        pass


def run_without_torch(check: Callable[[], None], command: list[str]) -> None:
    """Run a check in this process without torch, unless torch is here already.

    Args:
        check: The check; it imports the modules of compressors itself.
        command: Arguments for Python that start the check over, with torch, in place of this process.
    """
    if "torch" not in sys.modules:
        _stand_in()
    try:
        check()
    except TorchNeeded:  # modules have kept names of the stand-in, so this process cannot go on
        os.execv(sys.executable, [sys.executable, *command])


def _stand_in() -> None:
    """Put names that modules of compressors need for their import in place of torch."""
    functional = _Missing("torch.nn.functional")
    rnn = _Missing("torch.nn.utils.rnn", pad_sequence=_Missing("torch.nn.utils.rnn.pad_sequence"))
    utils = _Missing("torch.nn.utils", rnn=rnn)
    nn = _Missing("torch.nn", Module=_Class, functional=functional, utils=utils)
    dtypes = {name: _Missing(f"torch.{name}") for name in DTYPES}
    torch = _Missing("torch", nn=nn, Tensor=_Class, no_grad=_Mode, inference_mode=_Mode, **dtypes)
    sys.modules |= {module.__name__: module for module in (torch, nn, functional, utils, rnn)}
