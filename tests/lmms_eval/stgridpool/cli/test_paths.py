"""No command takes an empty path for the working directory."""

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from lmms_eval_stgridpool.cli.app import app
from lmms_eval_stgridpool.cli.paths import path

COMMANDS = typer.main.get_command(app).commands


def holds_path(kind):
    return kind is Path or any(map(holds_path, get_args(kind)))


def find_paths():
    """Return the command, the parameter and the words before its value, of all paths and checkpoints."""
    found = []
    for registered in app.registered_commands:
        kinds, words = get_type_hints(registered.callback), []
        for given in COMMANDS[registered.name].params:
            is_argument = given.param_type_name == "argument"
            if holds_path(kinds.get(given.name)) or given.name == "checkpoint":
                before = tuple(words) if is_argument else (given.opts[0],)
                found.append(pytest.param(registered.name, given.name, before, id=f"{registered.name} {given.name}"))
            words += ["x"] if is_argument else []
    return found


PATHS = find_paths()


def test_all_kinds_of_paths_are_found():
    """Optional ones and lists, options and arguments: otherwise the test below would look at none."""
    found = {tuple(one.values[:2]) for one in PATHS}
    assert {
        ("eval", "output"),
        ("show", "video"),
        ("show", "output"),
        ("report", "folders"),
        ("eval", "checkpoint"),
    } < found


@pytest.mark.parametrize("text", ["", " "])
@pytest.mark.parametrize(("command", "name", "words"), PATHS)
def test_an_empty_path_is_refused_before_anything_else(command, name, words, text):
    """What is given is read before what is missing is noticed."""
    error = CliRunner().invoke(app, [command, *words, text], standalone_mode=False).exception
    assert isinstance(error, typer.BadParameter)
    assert error.param.name == name
    assert error.message == "this must be a path, got an empty text; is it a shell variable that is not set?"


def test_paths_are_taken_as_they_are():
    assert path("~/a b") == Path("~/a b")
    assert path(".") == Path()
