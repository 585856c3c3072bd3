"""Clips, a checkpoint and requests for the plug-in's tests."""

import shutil

import av
import numpy as np
import pytest
from lmms_eval.api.instance import Instance


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
def make_model(checkpoint):
    """Function that builds the lmms-eval model on the CPU; arguments as in --model_args."""
    from lmms_eval_stgridpool.llava_video import LlavaVideo

    def make(**arguments):
        return LlavaVideo(**{"pretrained": str(checkpoint), "max_frames_num": 8, "device": "cpu"} | arguments)

    return make


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
