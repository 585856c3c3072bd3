"""Compare evaluation runs in a table: tokens and time per video, and the score.

Each folder is the `--output` of a `scripts/evaluate.sh` or of a sweep; the newest run of each counts. Tokens come
from lmms-eval's samples file, as means over the answered questions; seconds from the record that the model writes
beside the results, summed over stages and processes and divided by the questions, without the reading and encoding that
the runs of a sweep share; the accuracy is the task's first metric, as lmms-eval
reports it, with a 95 % interval that counts the questions of one video as one draw. The table also
counts unanswered questions; a run that failed because there were too many is shown without its accuracy. Runs that
used different task files, weights or frames under the same name are refused.
"""

import argparse
import json
import sys
from dataclasses import asdict

from rich.console import Console

from lmms_eval_stgridpool.comparison.fingerprints import check_comparable
from lmms_eval_stgridpool.comparison.finished_run import find_runs
from lmms_eval_stgridpool.comparison.rows import rows_of
from lmms_eval_stgridpool.comparison.table import markdown, show
from lmms_eval_stgridpool.kept.paths import path_argument
from stgridpool.retention import DEFINITIONS


def main() -> None:
    """Parse the command line and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=path_argument, nargs="+", help="output folders of runs")
    parser.add_argument("--by", metavar="FIELD", help="also score by what the metric keeps, such as task_category")
    parser.add_argument(
        "--retention-of", choices=DEFINITIONS, default="last_layer", help="which retention (default: %(default)s)"
    )
    parser.add_argument(
        "--anyway", action="store_true", help="show runs that used different files under one name, too, with a warning"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of rows as JSON instead of the table")
    form.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    arguments = parser.parse_args()
    try:
        runs = find_runs(arguments.folders)
        for warning in check_comparable(runs, arguments.anyway):
            print(f"compare_runs.py: {warning}", file=sys.stderr)
        rows = [row for run in runs for row in rows_of(run, arguments.by, arguments.retention_of)]
    except (FileNotFoundError, ValueError) as error:
        parser.exit(1, f"compare_runs.py: {error}\n")
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    elif arguments.markdown:
        print(markdown(rows))
    else:
        show(rows, Console(), arguments.retention_of)


if __name__ == "__main__":
    main()
