"""Load tasks as lmms-eval does, and write what they make of their documents and of given answers as JSON.

Called as ``python probe.py REQUEST REPORT``; the request is ``{"include": folder, "defaults": whether lmms-eval's own
tasks are wanted too, "folders": {working folder: {name of a task: [answer, ...]}}}``; documents may outnumber answers.
"""

import json
import os
import random
import sys
from argparse import Namespace
from collections import defaultdict
from pathlib import Path

from lmms_eval.tasks import TaskManager
from loguru import logger


def describe(task, answers, output_path):
    docs = list(task.eval_docs)
    items = defaultdict(list)
    for doc, answer in zip(docs, answers, strict=False):
        for metric, value in task.process_results(doc, [answer]).items():
            items[metric].append(value)
    scores = {}
    for metric, aggregate in task.aggregation().items():
        arguments = {"args": Namespace(output_path=output_path)} if "args" in aggregate.__code__.co_varnames else {}
        if items[metric]:
            scores[metric] = aggregate(items[metric], **arguments)
    return {
        "prompts": [task.doc_to_text(doc) for doc in docs],
        "videos": [task.doc_to_visual(doc) for doc in docs],
        "targets": [task.doc_to_target(doc) for doc in docs],
        "generation": task.config.generation_kwargs,
        "items": items,
        "scores": scores,
    }


def main(request_path, report_path):
    logger.remove()
    logger.add(sys.stderr)  # lmms-eval's models, once imported, leave out what is not a warning
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    random.choice = lambda choices: choices[0]  # the stock parsers guess; here they always guess the first option
    manager = TaskManager(
        include_path=request["include"], include_defaults=request["defaults"], model_name="llava_video"
    )
    report = {}
    for folder, tasks in request["folders"].items():
        os.chdir(folder)
        loaded = {}
        for name, answers in tasks.items():
            for key, task in manager.load_task_or_group([name]).items():
                subtasks = task if isinstance(task, dict) else {key: task}
                loaded |= {sub: describe(sub_task, answers, folder) for sub, sub_task in subtasks.items()}
        report[folder] = loaded
    Path(report_path).write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
