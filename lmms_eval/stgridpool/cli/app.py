"""The commands of ``stgridpool``, and how they end."""

import inspect
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from lmms_eval_stgridpool.cli.ask import ask
from lmms_eval_stgridpool.cli.choose import choose
from lmms_eval_stgridpool.cli.doctor import doctor
from lmms_eval_stgridpool.cli.launching import LAUNCHED
from lmms_eval_stgridpool.cli.methods import methods
from lmms_eval_stgridpool.cli.plan import plan
from lmms_eval_stgridpool.cli.report import report
from lmms_eval_stgridpool.cli.reproduce import reproduce
from lmms_eval_stgridpool.cli.runs import compare, eval_, extract, sweep
from lmms_eval_stgridpool.cli.show import show
from lmms_eval_stgridpool.cli.submit import submit

NAME = "stgridpool"

app = typer.Typer(
    name=NAME,
    help="Training-free compression of the visual tokens of Video LLMs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (methods, doctor, plan, ask, show, eval_, sweep, choose, compare, report, extract, submit, reproduce):
    # Lines of a paragraph are joined: typer wraps them to the terminal, but keeps breaks that are there.
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    app.command(command.__name__.strip("_"), help="\n\n".join(" ".join(text.split()) for text in paragraphs))(command)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"{NAME} {version(NAME)}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    launched: Annotated[bool, typer.Option(LAUNCHED, hidden=True)] = False,  # see `is_launched`
) -> None:
    """Training-free compression of the visual tokens of Video LLMs."""


def main() -> None:
    """Run the command line; an error that the user can fix is one line, the last one, and the status is 1."""
    try:
        app(prog_name=NAME)
    except (ValueError, TypeError, OSError, NotImplementedError) as error:
        sys.exit(f"{NAME}: {error}")
