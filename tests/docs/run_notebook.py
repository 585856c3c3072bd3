"""Runs the cells of a notebook as Jupyter does; called as ``python run_notebook.py NOTEBOOK``.

Prints what the cells print, and then the types in which their last expressions can be shown, in a JSON list on a line.
"""

import json
import sys
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell


def main(path):
    shell, shown = InteractiveShell.instance(), []
    for cell in json.loads(Path(path).read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        result = shell.run_cell("".join(cell["source"]))
        result.raise_error()
        if result.result is not None:
            shown += shell.display_formatter.format(result.result)[0]
    sys.stdout.write(json.dumps(shown) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
