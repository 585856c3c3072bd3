"""Clips, a checkpoint, requests, tasks and whole runs for the plug-in's tests."""

import copy
import gc
import io
import json
import os
import pickle
import shutil
import struct
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import accelerate.utils.memory
import av
import lmms_eval.api.model
import numpy as np
import pytest
import torch
from lmms_eval.api.instance import Instance
from loguru import logger

from llava import reading_process
from native_models.families import save

QUIZ = ["v0.mp4", "v1.mp4", "v0.mp4", "broken.mp4", "v1.mp4", "v0.mp4", "v2.mp4"]  # 7: uneven on two processes
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {questions}.json}}}}
test_split: test
doc_to_visual: !function functions.visuals
doc_to_text: !function functions.text
"""
GENERATION = """
output_type: generate_until
doc_to_target: answer
generation_kwargs: {max_new_tokens: 6}
process_results: !function functions.process
metric_list: [{metric: length, aggregation: mean, higher_is_better: true}]
"""
CHOICE = """
output_type: multiple_choice
doc_to_choice: !function functions.choices
doc_to_target: gold
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
TASKS = {
    "clips": ("quiz", GENERATION),
    "clips_choice": ("quiz", CHOICE),
    "clips_bad_end": ("quiz", GENERATION.replace("mean", "!function functions.fail")),
    "clips_bad_document": ("quiz_with_a_bad_question", GENERATION),
    "one_long_video": ("one_long_video", GENERATION),
    "many_videos": ("many_videos", GENERATION),
    "traps": ("traps", GENERATION),
}
FUNCTIONS = """
from pathlib import Path

def visuals(doc): return [str(Path(__file__).parent / "videos" / doc["video"])]
def text(doc): return doc["question"]
def choices(doc): return ["red", "a green thing"]
def process(doc, results): return {"length": float(len(results[0]))}
def fail(results): raise ConnectionError("the server is down")
"""


def write_clip(path, seconds=5, rate=8, seed=0):
    """An H.264 clip of a moving pattern, 64x48."""
    row, column = np.mgrid[:48, :64]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(seconds * rate):
            channels = [column * (3 + seed) + index * 4, row * 4 + index * 2, row * 0 + seed * 60 + index * 3]
            image = (np.stack(channels, -1) % 256).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_traps(folder):
    """Write two small files that look like videos: one with an index of 600 MB, one that waits for a pipe."""
    path = write_clip(folder / "huge.mp4", 2)
    data, many = bytearray(path.read_bytes()), 10_000_000
    # In the boxes: one size for all samples and their number, samples per chunk, samples of one duration.
    for box, place, numbers in ((b"stsz", 4, (1, many)), (b"stsc", 12, (many,)), (b"stts", 8, (many,))):
        struct.pack_into(f">{len(numbers)}I", data, data.rindex(box) + 4 + place, *numbers)
    path.write_bytes(data)
    os.mkfifo(folder / "pipe")
    (folder / "waiting.mp4").write_text("ffconcat version 1.0\nfile pipe\n")


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Folder with v0.mp4 (5 s), v1.mp4 (7 s), v2.mp4 (12 s) and broken.mp4, which is text."""
    folder = tmp_path_factory.mktemp("clips")
    for seed, seconds in enumerate((5, 7, 12)):
        write_clip(folder / f"v{seed}.mp4", seconds, seed=seed)
    (folder / "broken.mp4").write_text("no video\n" * 99)
    return folder


@pytest.fixture(scope="session")
def checkpoint(golden, tmp_path_factory):
    """The tiny LLaVA-Video checkpoint, in a folder of its own name."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-video"
    shutil.copytree(golden / "llava" / "ckpt-video", folder)
    return folder


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """Function that returns the tiny native checkpoint of a family."""
    folder, made = tmp_path_factory.mktemp("native"), {}

    def folder_of(name):
        if name not in made:
            made[name] = save(name, folder / name)
        return made[name]

    return folder_of


@pytest.fixture(scope="session")
def share_reading():
    """Function after which a `VideoReader` has the one process that reads for all, unless a test has it misbehave.

    Starting a process takes longer than reading. It stays when the reader is closed. This thread starts it: one started
    by a model's thread ends with that thread, so that no other reader gets it.
    """
    own, idle, plain_worker = None, [], reading_process.WORKER

    def end_idle(kept=None):
        while idle:
            if (process := idle.pop()) is not kept:
                process.end()

    def share(reader):
        nonlocal own
        if plain_worker == reading_process.WORKER:
            if own not in idle or not own.can_go_on:  # none yet, ended, or still at work for an earlier model
                own = reading_process.ReadingProcess()
            end_idle(own)
            idle.append(own)
            reader._idle, reader.close = idle, lambda: None

    yield share
    end_idle()


@pytest.fixture(scope="session", autouse=True)
def _clean_without_collecting():
    """Spare lmms-eval's `clean` its two collections of garbage, which take longer than the evaluations of tests."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (lmms_eval.api.model, accelerate.utils.memory):
            patch.setattr(module, "gc", SimpleNamespace(collect=lambda: 0))
        yield


@pytest.fixture(scope="session")
def make_model(checkpoint, share_reading):
    """Function that builds the lmms-eval model on the CPU, or one of another class; arguments as in --model_args.

    A checkpoint that is loaded again as before, from the same files, is a copy of what was loaded first. What the first
    model imports is never searched for garbage, and only the first adds its handler to the logger.
    """
    from lmms_eval_stgridpool import evaluated_model, llava_video, video_hf

    load = _copying(llava_video.load_video_model, lambda model: model.tokenizer)
    load_native = _copying(video_hf.load_native, lambda pair: pair[1].tokenizer)
    plan = _remembering(llava_video.Planner.of)
    add_handler = cache(evaluated_model.exit_when_lmms_eval_gives_up)
    defaults = {"pretrained": str(checkpoint), "max_frames_num": 8, "device": "cpu", "decode_threads": 1}

    def make(kind=llava_video.LlavaVideo, **arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(llava_video, "load_video_model", load)
            patch.setattr(llava_video, "Planner", SimpleNamespace(of=plan))
            patch.setattr(video_hf, "load_native", load_native)
            patch.setattr(evaluated_model, "exit_when_lmms_eval_gives_up", add_handler)
            model = kind(**defaults | arguments)
        share_reading(model.encoder.loader._reader)
        freeze_once()
        return model

    @cache
    def freeze_once():
        gc.collect()
        gc.freeze()

    return make


def _remembering(read):
    """Return a function that reads a checkpoint as `read` does, once for the same files and arguments."""
    found = {}

    def read_once(checkpoint, *arguments, **options):
        heads = [options[name] for name in ("pool_head", "text_tower") if options.get(name)]
        files = [file for folder in (checkpoint, *heads) for file in sorted(Path(folder).rglob("*"), key=str)]
        stamps = tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file())
        key = (str(checkpoint), repr(arguments), repr(options), stamps)
        if key not in found:
            found[key] = read(checkpoint, *arguments, **options)
        return found[key]

    return read_once


def _copying(load, tokenizer_of):
    """Return a function that loads a checkpoint as `load` does, but copies what the same call has loaded before."""

    @_remembering
    def pickle_once(checkpoint, **options):
        loaded = load(checkpoint, **options)
        return _Pickled(loaded, tokenizer_of(loaded))

    return lambda checkpoint, **options: pickle_once(checkpoint, **options).copy()


class _Pickled:
    """A loaded model that is copied in a quarter of the time that `deepcopy` takes; all copies share its tokenizer."""

    def __init__(self, model, tokenizer):
        file, self._parts, self._tokenizer = io.BytesIO(), {}, tokenizer
        pickler = pickle.Pickler(file, pickle.HIGHEST_PROTOCOL)
        pickler.persistent_id = self._leave_out
        pickler.dump(model)
        self._data = file.getvalue()

    def _leave_out(self, part):
        if isinstance(part, torch.Tensor) or part is self._tokenizer:
            self._parts[id(part)] = part
            return id(part)
        return None

    def copy(self):
        parts = copy.deepcopy(self._parts, {id(self._tokenizer): self._tokenizer})
        unpickler = pickle.Unpickler(io.BytesIO(self._data))  # noqa: S301 - our own
        unpickler.persistent_load = parts.__getitem__
        return unpickler.load()


@pytest.fixture
def ask(clips):
    """Function that gives a model a task with these documents and asks one kind of request about them.

    A document is a dict: `visuals` (names of clips, or anything else), `context`, and `gen_kwargs`, `continuation` or
    `doc_to_text`; `padding` marks a padding request.
    """

    def ask(model, kind, documents):
        model.task_dict["task"] = {"test": documents}
        return getattr(model, kind)([make_instance(kind, index, document) for index, document in enumerate(documents)])

    def visuals(document):
        if document.get("exit"):
            raise SystemExit(document["exit"])
        names = document.get("visuals", [])
        return [str(clips / name) if isinstance(name, str) else name for name in names]

    def make_instance(kind, index, document):
        middle = {
            "generate_until": (document.get("gen_kwargs", {"max_new_tokens": 4}), visuals),
            "loglikelihood": (document.get("continuation"), visuals),
            "generate_until_multi_round": (document.get("gen_kwargs", {}), visuals, document.get("doc_to_text")),
        }[kind]
        metadata = {"task": "task", "doc_id": index, "repeats": 1} | (
            {"__padding_only__": True} if document.get("padding") else {}
        )
        arguments = (document.get("context", "What is shown?"), *middle, index, "task", "test")
        return Instance(request_type=kind, arguments=arguments, idx=0, metadata=metadata)

    return ask


@pytest.fixture(scope="session")
def tasks(tmp_path_factory, clips):
    """Folder of task files for --include_path, with their questions and videos.

    `clips` and `clips_choice` ask the same seven questions, `clips_bad_end` fails when it aggregates the answers to
    them, `clips_bad_document` has a question longer than the checkpoint takes, `one_long_video` asks about one of 90 s
    and 10 of 5 s, `many_videos` asks about 30, `traps` also about files that FFmpeg opens with a lot of memory, or
    never.
    """
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "videos").mkdir()
    for clip in clips.iterdir():
        (folder / "videos" / clip.name).symlink_to(clip)
    long_words = "word " * 5000
    names = {
        "quiz": QUIZ,
        "quiz_with_a_bad_question": QUIZ,
        "one_long_video": ["long.mp4", *(f"short{index}.mp4" for index in range(10))],
        "many_videos": [f"many{index}.mp4" for index in range(30)],
        "traps": ["v0.mp4", "huge.mp4", "v1.mp4", "waiting.mp4", "v2.mp4"],
    }
    write_traps(folder / "videos")
    write_clip(folder / "videos" / "long.mp4", 90)
    for name in {*names["one_long_video"][1:], *names["many_videos"]}:
        (folder / "videos" / name).symlink_to(clips / "v0.mp4")
    for questions, videos in names.items():
        rows = [
            {"video": video, "question": f"{row} What is shown?", "answer": "", "gold": 1}
            for row, video in enumerate(videos)
        ]
        if questions == "quiz_with_a_bad_question":
            rows[5]["question"] += long_words
        (folder / f"{questions}.json").write_text("\n".join(map(json.dumps, rows)))
    (folder / "functions.py").write_text(FUNCTIONS)
    for name, (questions, text) in TASKS.items():
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, questions=questions) + text)
    return folder


@pytest.fixture(scope="session")
def evaluate(tmp_path_factory, checkpoint, tasks, read_results, start_programs, environments_of_ranks):
    """Function that runs lmms-eval on real processes, as `evaluation.py` says; other arguments are the model's.

    `kill` is a function that is called with the processes' IDs while they run. Returns exit statuses, scores and
    samples by task and document, each process's messages, and the peak memory in MiB.
    """
    program = Path(__file__).with_name("evaluation.py")

    def evaluate(task, num_processes=1, kill=None, limit=None, use_cache=None, **arguments):
        results = tmp_path_factory.mktemp("evaluation") / "results.json"
        defaults = {"pretrained": checkpoint, "max_frames_num": 8, "torch_dtype": "float32", "decode_threads": 1}
        arguments = defaults | arguments
        evaluation = {"tasks": task.split(","), "batch_size": 1, "bootstrap_iters": 0, "limit": limit}
        evaluation["model_args"] = ",".join(f"{name}={value}" for name, value in arguments.items())
        evaluation["use_cache"] = use_cache
        run = {"output": str(results), "include_path": str(tasks)}
        words = (program, json.dumps(run | {"evaluation": evaluation}))
        started = start_programs(*[words] * num_processes, environments=environments_of_ranks(num_processes))
        if kill:
            kill(started.processes)
        ended = started.wait()
        messages = ["".join(path.read_text() for path in logs) for logs in started.logs]
        scores, samples = read_results(json.loads(results.read_text())) if results.exists() else (None, None)
        return SimpleNamespace(**vars(ended), scores=scores, samples=samples, messages=messages)

    return evaluate


@pytest.fixture(scope="session")
def read_results():
    """Function that reads what lmms-eval gives.

    Returns scores by task and metric, and samples by task and document without their times.
    """

    def read_results(results):
        metrics = ((task, *metric) for task, own in results["results"].items() for metric in own.items())
        scores = {(task, name): score for task, name, score in metrics if isinstance(score, float)}
        samples = {(task, one["doc_id"]): one for task, own in results["samples"].items() for one in own}
        for sample in samples.values():
            for counts in filter(None, sample["token_counts"]):  # None: from lmms-eval's response cache
                for times in ("seconds", "first_token_seconds"):
                    del counts[times]
        return scores, samples

    return read_results


@pytest.fixture
def logged():
    """Messages that are logged during the test."""
    messages = []
    handler = logger.add(messages.append, level="DEBUG")
    yield messages
    logger.remove(handler)


@pytest.fixture
def _settings_of_torch():
    """Puts back what switching on changes for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
