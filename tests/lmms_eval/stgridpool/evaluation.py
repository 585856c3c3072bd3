"""Evaluates with the plug-in as lmms-eval's `simple_evaluate` does; called as ``python evaluation.py JSON``.

The argument holds `output`, the file for the results, `include_path`, a folder of tasks, and `evaluation`, further
arguments of `simple_evaluate`.
"""

import json
import os
import sys
from pathlib import Path

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager


def main(run):
    manager = TaskManager(include_path=run["include_path"], include_defaults=False, model_name="llava_video")
    results = simple_evaluate("llava_video", task_manager=manager, **run["evaluation"])
    if os.environ.get("RANK", "0") == "0":
        unfinished = Path(run["output"] + ".unfinished")
        unfinished.write_text(json.dumps(results, default=repr))
        unfinished.rename(run["output"])  # whole, or not there: the process may be killed


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
