r"""Evaluate several compressors on a task in one process, and compare them in a table.

Each video is decoded and encoded once for all compressors; only compression and answering are repeated.
OUTPUT/COMPRESSOR then holds the same files as a separate run would write: lmms-eval's results, the samples and the
record of the run. Its seconds exclude reading and encoding, which are printed separately.

Example:
  python scripts/sweep.py --tasks videomme --model_args pretrained=lmms-lab/LLaVA-Video-7B-Qwen2,max_frames_num=64 \
    bilinear st_gridpool 'average:{"kernel_size":4}'

On several GPUs: accelerate launch --num_processes 8 scripts/sweep.py ... A sweep that was stopped resumes when it is
started again: answers are kept with the results, or in the folder of resume_dir=FOLDER among the --model_args.

Accuracies that papers report for the same checkpoint, task, method and retention stand below the table.

With --retention every compressor gets the options that make it keep that share of the tokens after the checkpoint's own
pooling, however it counts its own budget. Compressors that cannot do so are listed below the table.
"""

from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping
from functools import partial
from itertools import dropwhile
from pathlib import Path
from typing import Any

from lmms_eval_stgridpool.manifest import exit_without_own_llava

exit_without_own_llava()  # before the imports that would fail

from rich.console import Console

from lmms_eval_stgridpool.cli.checking import check_first
from lmms_eval_stgridpool.kept.paths import path_argument
from stgridpool.retention import DEFINITIONS

REPOSITORY = Path(__file__).resolve().parent.parent


class Shares(Action):
    """Numbers, which compressors may follow: ``--retention 0.5 0.25 random nsp``."""

    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: Any, option: str | None = None) -> None:
        """Keep the numbers, and the words after them as compressors."""
        words = list(dropwhile(_is_number, values))
        shares = [float(value) for value in values[: len(values) - len(words)]]
        if not shares:
            parser.error(f"{option} needs a number, got {values[0]!r}")
        setattr(namespace, self.dest, shares)
        namespace.behind_retention = words


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def make_parser() -> ArgumentParser:
    """Make the parser of the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("compressors", nargs="*", metavar="COMPRESSOR", help='NAME or NAME:{"option":value}')
    parser.add_argument("--tasks", required=True, help="names of tasks, separated by commas")
    parser.add_argument(
        "--model_args", required=True, help="arguments of the model, without compressor: pretrained=FOLDER,..."
    )
    parser.add_argument(
        "--retention",
        action=Shares,
        nargs="+",
        default=(),
        help="shares of the checkpoint's own tokens to keep, 0 to 1",
    )
    parser.add_argument(
        "--retention-of", choices=DEFINITIONS, default=DEFINITIONS[0], help="which retention (default: %(default)s)"
    )
    parser.add_argument("--include_path", type=path_argument, help="folder of further tasks")
    parser.add_argument(
        "--limit", type=float, help="questions per task, for a trial run: a whole number, or a share below 1"
    )
    parser.add_argument(
        "--output_path", type=path_argument, help="where results go (default: logs/runs/TASKS/sweep_KEY=VALUE_...)"
    )
    parser.add_argument(
        "--uncompressed", dest="has_own", action="store_true", help="also evaluate the checkpoint as it is"
    )
    parser.set_defaults(behind_retention=[])
    return parser


def check(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Check what can be checked before anything is loaded.

    Raises:
        ValueError: If the sweep cannot work; the message says why.
    """
    from lmms_eval_stgridpool.run.sweep_checks import Compared, check_sweep  # noqa: PLC0415 - not needed by other ranks

    names = ("compressors", "model_args", "retention", "retention_of", "has_own")
    compared = Compared(**{name: given[name] for name in names})
    return check_sweep(compared, given["tasks"], given["include_path"], given["limit"])


def main() -> None:
    """Parse the command line, check it, evaluate, and print the comparison."""
    parser = make_parser()
    given = vars(parser.parse_args())
    given["compressors"] = (*given["compressors"], *given.pop("behind_retention"))
    given["retention"] = tuple(given["retention"])
    try:
        check_first("sweep.py", partial(check, given))
    except ValueError as error:
        parser.error(str(error))
    # These load lmms-eval and torch, which takes many seconds.
    from lmms_eval_stgridpool.comparison.choice import Choice  # noqa: PLC0415
    from lmms_eval_stgridpool.comparison.folders import output_folder  # noqa: PLC0415
    from lmms_eval_stgridpool.comparison.sweeping import Sweep  # noqa: PLC0415
    from lmms_eval_stgridpool.comparison.table import show  # noqa: PLC0415

    if given["output_path"] is None:
        options = {name: given[name] for name in ("tasks", "model_args", "retention_of", "limit", "include_path")}
        given["output_path"] = output_folder(REPOSITORY / "logs" / "runs", **options)
    sweep = Sweep(tuple(map(Choice.parse, given.pop("compressors"))), **given)
    outcome = sweep.run()
    if not outcome.is_first:
        return
    if not outcome.rows:
        parser.exit(1, "sweep.py: no compressor could meet its budget: " + "; ".join(outcome.remarks) + "\n")
    show(outcome.rows, Console(), sweep.retention_shown)
    print(*outcome.published, *outcome.remarks, sep="\n")
    if outcome.failed:
        parser.exit(1, f"sweep.py: a run failed, see above. Results, marked: {sweep.output_path}\n")
    print(
        f"Reading and encoding, all compressors together: {outcome.shared_seconds:.3f} seconds per question. "
        f"Results: {sweep.output_path}"
    )


if __name__ == "__main__":
    main()
