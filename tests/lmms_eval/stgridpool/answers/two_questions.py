"""Asks the plug-in's model about videos, on every rank; called as ``python two_questions.py JSON``.

The argument holds `runs`, each with the model's `arguments` and `documents` (video, question), and `output`, a folder
for one file per rank. The documents are dealt out over the ranks as lmms-eval does it. A file lists for every run the
`answers` to the rank's own documents by their number, and by video and question the tokens `kept` where this rank
found the answer.
"""

import json
import os
import sys
from pathlib import Path

from lmms_eval.api.instance import Instance, unwrap_generation_output

from llava.reading_process import ReadingProcess
from lmms_eval_stgridpool.llava_video import LlavaVideo

RANK, WORLD_SIZE = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def run(model, documents):
    """Ask a model, and return this rank's entry of a file."""
    kept = []
    note_kept(model._answerer, kept)
    model.task_dict["task"] = {"test": documents}
    numbers = range(RANK, len(documents), WORLD_SIZE)
    results = model.generate_until([instance(number, *documents[number]) for number in numbers])
    texts = [unwrap_generation_output(result)[0] for result in results]
    return {"answers": dict(zip(numbers, texts, strict=True)), "kept": kept}


def instance(number, video, question):
    metadata = {"task": "task", "doc_id": number, "repeats": 1}
    arguments = (question, {"max_new_tokens": 6}, lambda document: [document[0]], number, "task", "test")
    return Instance(request_type="generate_until", arguments=arguments, idx=0, metadata=metadata)


def note_kept(answerer, kept):
    """Note what the steps before the language model kept, and each step inside it."""
    plain = answerer.answer

    def answer(requests, *others):
        answers = plain(requests, *others)
        inside = answerer.encoder.model.inside
        places = [step[0].anchor.tolist() for step in inside.last.plans[0]] if inside else []
        front = answerer._media._made.visuals[0].plan.flatten().rows.sources.tolist()
        [request] = requests
        kept.append([answerer._tasks.visuals(request)[0], request.context, [front, *places]])
        return answers

    answerer.answer = answer


if __name__ == "__main__":
    job, found = json.loads(sys.argv[1]), []
    reading = [ReadingProcess()]  # for all models: starting it takes longer than reading
    for one in job["runs"]:
        model = LlavaVideo(**one["arguments"])
        model.encoder.loader._reader._idle = reading
        found.append(run(model, one["documents"]))
    Path(job["output"], f"{RANK}.json").write_text(json.dumps(found))
