"""accelerate's launcher without its traceback where a signal ends it; it prints a line of the caller's instead.

python -m lmms_eval_stgridpool.run.quiet_launch LINE [OPTION_OF_ACCELERATE_LAUNCH...]
"""

import sys

from accelerate.commands import launch
from torch.distributed.elastic.multiprocessing.api import SignalException


def main() -> None:
    """Launch; an empty line is not printed."""
    name, line, *options = sys.argv
    sys.argv = [name, *options]
    try:
        launch.main()
    except SignalException as error:  # all ranks have ended
        if line:
            sys.stderr.write(f"{line}\n")
        sys.exit(128 + error.sigval)


if __name__ == "__main__":
    main()
