"""Checks without torch, whose import takes three seconds.

Compressors check their options and count their tokens in whole numbers; their modules import torch for what they do to
tensors. In a process that only checks, a stand-in takes torch's place: it has the names without which these modules
cannot be imported, and nothing that computes. Whoever asks it for more gets `TorchNeeded`, and the check starts over in
a process with torch, so that no result depends on the stand-in. Methods of other packages may use all of torch, and are
never imported without it, see `stgridpool.elsewhere.find_method`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from lmms_eval_stgridpool.run.launcher import end_with_parent

DTYPES = ("bfloat16", "float16", "float32")
_NEEDS_TORCH = 77
"""Exit status of a process in which a check has met `TorchNeeded`."""


class TorchNeeded(BaseException):
    """Raised where torch itself is needed; no handler of errors catches it."""


class _Missing(ModuleType):
    """A module, function or value of torch that has only the names it was given."""

    def __init__(self, name: str, **names: Any) -> None:
        super().__init__(name)
        self.__dict__.update(names, __spec__=ModuleSpec(name, None), __path__=[])

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__") and name != "__version__":  # Python itself looks for these
            raise AttributeError(f"{self.__name__} has no {name}")
        raise TorchNeeded(f"{self.__name__}.{name}")

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise TorchNeeded(self.__name__)


class _Submodules(MetaPathFinder):
    """Finder of torch's other modules, none of which can be had."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.startswith("torch."):
            raise TorchNeeded(name)


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


def run_without_torch(check: Callable[[], None]) -> None:
    """Run a check in a process of its own without torch, and once more in this one if it needs torch.

    Args:
        check: The check; it imports the modules of compressors itself. An exception that leaves it ends the other
            process as it would end this one.

    Raises:
        SystemExit: If the other process has failed; it has said why.
    """
    if "torch" in sys.modules or not hasattr(os, "fork"):
        check()
        return
    sys.stdout.flush()
    parent = os.getpid()
    process = os.fork()
    if process == 0:
        end_with_parent(parent)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches the parent, too
        _stand_in()
        os._exit(_status_of(check))
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status == _NEEDS_TORCH:
        check()
    elif status != 0:
        raise SystemExit(status if status > 0 else 128 - status)


def _status_of(check: Callable[[], None]) -> int:
    try:
        check()
        sys.stdout.flush()
    except TorchNeeded:
        return _NEEDS_TORCH
    return 0


def _stand_in() -> None:
    """Put names that modules of compressors need for their import in place of torch."""
    functional = _Missing("torch.nn.functional")
    rnn = _Missing("torch.nn.utils.rnn", pad_sequence=_Missing("torch.nn.utils.rnn.pad_sequence"))
    utils = _Missing("torch.nn.utils", rnn=rnn)
    nn = _Missing("torch.nn", Module=_Class, functional=functional, utils=utils)
    dtypes = {name: _Missing(f"torch.{name}") for name in DTYPES}
    torch = _Missing("torch", nn=nn, Tensor=_Class, no_grad=_Mode, inference_mode=_Mode, **dtypes)
    sys.modules |= {module.__name__: module for module in (torch, nn, functional, utils, rnn)}
    sys.meta_path.insert(0, _Submodules())
