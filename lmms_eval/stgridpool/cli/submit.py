"""``stgridpool submit``: EgoSchema's validation server."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from lmms_eval_stgridpool.cli import paths

FILE = typer.Argument(
    parser=paths.path, metavar="FILE", help="The submission, which the task egoschema_submission writes."
)
QUESTIONS = typer.Option(
    parser=paths.path, help="JSON with the ids to answer; default: data/egoschema/questions.json, if it exists."
)
DRY_RUN = typer.Option("--dry-run", help="Check the file and send nothing.")
URL = typer.Option(help="Validation server; default: EgoSchema's.")
OUTPUT = typer.Option(parser=paths.path, help="Also write the answer to this file, as JSON.")
RETRIES = typer.Option(min=0, max=100, help="Tries after the first.")
TIMEOUT = typer.Option(min=0.1, max=3600, help="Seconds for a whole try.")
BACKOFF = typer.Option(min=0, max=3600, help="Seconds before the second try; each further one waits twice as long.")


def submit(
    file: Annotated[Path, FILE],
    questions: Annotated[Path | None, QUESTIONS] = None,
    dry_run: Annotated[bool, DRY_RUN] = False,
    url: Annotated[str | None, URL] = None,
    output: Annotated[Path | None, OUTPUT] = None,
    retries: Annotated[int | None, RETRIES] = None,
    timeout: Annotated[float | None, TIMEOUT] = None,
    backoff: Annotated[float | None, BACKOFF] = None,
) -> None:
    """Check an EgoSchema submission, post it to the validation server and report the scores.

    Nothing is sent unless the whole file is valid. If the server rejects it, it is not sent again.
    """
    from stgridpool.egoschema import server  # noqa: PLC0415
    from stgridpool.egoschema.submission_file import SubmissionError  # noqa: PLC0415
    from stgridpool.egoschema.submit import Progress  # noqa: PLC0415
    from stgridpool.egoschema.submit import submit as post  # noqa: PLC0415

    given: dict[str, Any] = {"retries": retries, "timeout": timeout, "backoff": backoff}
    attempts = replace(server.Attempts(), **{name: value for name, value in given.items() if value is not None})
    progress = Progress()
    address = server.URL if url is None else url
    try:
        post(
            file,
            address,
            attempts,
            progress,
            wait=time.sleep,
            questions=questions,
            output=output,
            dry_run=dry_run,
        )
    except (SubmissionError, OSError) as error:
        raise ValueError(f"{error}; {progress.sent}") from error
    except KeyboardInterrupt:
        typer.echo(f"\nstgridpool: interrupted: {progress.sent}", err=True)
        raise typer.Exit(130) from None
