"""``stgridpool methods``: the table of methods, and one of them in detail."""

from typing import TYPE_CHECKING, Annotated

import typer

from lmms_eval_stgridpool.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from stgridpool.catalogue import Entry

METHOD = typer.Argument(metavar="NAME", help="One method: its options, presets, needs, and models that it runs on.")
COLUMNS = ("name", "what it does", "where", "question", "budget", "source")


def methods(name: Annotated[str | None, METHOD] = None, as_json: AsJson = False) -> None:
    """List the methods, or show one in detail.

    "frames" acts before the vision tower, "tower layer" after layers of it (-1 is the one used as features),
    "pooling" replaces the checkpoint's own pooling, "tokens" acts after it, "layer" before layers of the language
    model. "question" says whether a method looks at the question: it then runs once per question.

    Methods of other installed packages are listed by name, below the table.
    """
    from stgridpool import COMPRESSORS  # noqa: PLC0415
    from stgridpool.catalogue import describe  # noqa: PLC0415
    from stgridpool.elsewhere import installed_names  # noqa: PLC0415

    if name is not None:
        _show_one(describe(name), as_json)
        return
    entries = [describe(one) for one in COMPRESSORS]
    if as_json:
        print_json(entries)
    else:
        print_table(COLUMNS, map(_row, entries))
        others = [one for one in installed_names() if one not in COMPRESSORS]
        if others:
            typer.echo(f"of other packages: {', '.join(others)}")


def _row(entry: "Entry") -> tuple[str, ...]:
    question = "yes" if entry.query_aware else "no"
    return entry.name, entry.summary, entry.where, question, entry.budget, entry.source.split(". ")[0]


def _show_one(entry: "Entry", as_json: bool) -> None:
    from lmms_eval_stgridpool.cli.suitable_models import suitable_models  # noqa: PLC0415
    from stgridpool import COMPRESSORS  # noqa: PLC0415

    models = suitable_models(entry.name)
    if as_json:
        print_json(vars(entry) | {"models": models})
        return
    typer.echo(f"{entry.name}: {entry.summary}\n\n{entry.idea}\n")
    facts = {
        "Source": entry.source or ("none; a baseline of this project" if entry.name in COMPRESSORS else "not stated"),
        "Acts at": entry.where,
        "Looks at the question": "yes, so that it runs once per question" if entry.query_aware else "no",
        "Budget": entry.budget,
        "Presets": ", ".join(entry.presets) or "none",
        "Needs": ", ".join(entry.needs) or "nothing besides the tokens",
    }
    for word, text in facts.items():
        typer.echo(f"{word}: {text}")
    if entry.options:
        print_table(("option", "default", ""), [(one.name, one.default, one.text) for one in entry.options])
    print_table(("model", "runs"), models.items())
