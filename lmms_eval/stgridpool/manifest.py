"""The manifest that lmms-eval reads when it starts: the names of our models, and the modules of their classes."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_eval_stgridpool.run.launcher import end_with_launcher

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


_CLASSES = {"llava_video": "LlavaVideo", "video_hf": "VideoHf"}
"""The classes of our models by their names in lmms-eval; each is in the module of the model's name."""


def manifests() -> list["ModelManifest"]:
    """List the models of this plug-in, for the entry-point group ``lmms_eval.models``.

    lmms-eval calls this function while it imports its own ``models`` package, so lmms-eval is imported here instead of
    at the top. This is also the earliest moment at which our code can make the process end with its launcher.

    Raises:
        SystemExit: If the command line names our model, and the launcher of this process has already ended or the run
            cannot work.
    """
    from lmms_eval.models.registry_v2 import ModelManifest  # noqa: PLC0415

    if any(word.endswith(tuple(_CLASSES)) for word in sys.argv):
        end_with_launcher()
        from lmms_eval_stgridpool.run.check_command import check_command_line  # noqa: PLC0415 - for our models only

        check_command_line(sys.argv[1:])
    return [
        ModelManifest(model_id=name, simple_class_path=f"{__name__}.{class_name}")
        for name, class_name in _CLASSES.items()
    ]


def __getattr__(name: str) -> Any:
    """Load the class of the model when lmms-eval asks for it, and end the process with status 1 if that fails.

    Raises:
        AttributeError: If another name is asked for.
        ImportError: If the package `llava` belongs to another project.
    """
    modules = {class_name: module for module, class_name in _CLASSES.items()}
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lmms_eval_stgridpool.run.failure import exit_when_lmms_eval_gives_up  # noqa: PLC0415 - imports torch

    exit_when_lmms_eval_gives_up()
    check_llava()
    return getattr(import_module(f"lmms_eval_stgridpool.{modules[name]}"), name)


def exit_without_own_llava() -> None:
    """End a command that is about to import the model where `import llava` finds another project's package.

    Raises:
        SystemExit: If it finds another package; the message, one line, names both.
    """
    try:
        check_llava()
    except ImportError as error:
        raise SystemExit(f"{Path(sys.argv[0]).name}: {error}") from error


def check_llava() -> None:
    """Check that `import llava` finds our package: LLaVA-NeXT's has the same name and many modules of the same names.

    Raises:
        ImportError: If it finds another package; the message names both.
    """
    found, own = find_spec("llava"), find_spec("stgridpool")
    places = list((found and found.submodule_search_locations) or [])
    if not places or own is None or own.origin is None:
        return  # the import itself will raise a better error
    expected = Path(own.origin).parent.with_name("llava")
    if not (Path(places[0]) / "reading_worker.py").is_file():
        raise ImportError(
            f"`import llava` finds {places[0]}, another project's package, but this plug-in needs {expected}: start "
            f"from another folder, remove {Path(places[0]).parent} from PYTHONPATH, or uninstall that package"
        )
