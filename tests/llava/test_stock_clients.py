"""lmms-eval's own model classes, unchanged, in real processes on tiny checkpoints.

lmms-eval exits with status 0 whatever happens, so the results and samples files are read, and the answers are compared
with those that the model gives here.
"""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.mm_utils import KeywordsStoppingCriteria, process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_NEW = 5

UTILS = """
from PIL import Image

def visuals(doc):
    return [Image.open(path).convert("RGB") if path.endswith(".png") else path for path in doc["visuals"]]

def question(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]

def choices(doc):
    return doc["choices"]

def process(doc, results):
    return {"seen": 1.0}

def process_choices(doc, results):
    return {"seen": float(len(results) == len(doc["choices"]))}

def mean(values):
    return sum(values) / len(values)
"""
TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: {output_type}
doc_to_visual: !function utils.visuals
doc_to_text: !function utils.question
doc_to_target: answer
process_results: !function utils.{process}
metric_list:
  - metric: seen
    aggregation: !function utils.mean
    higher_is_better: true
"""
GENERATION = f"""
generation_kwargs:
  max_new_tokens: {NUM_NEW}
  temperature: 0
  do_sample: false
"""


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Two clips at one frame a second, and two pictures."""
    folder = tmp_path_factory.mktemp("media")
    random = np.random.default_rng(3)
    for name, length in (("a", 5), ("b", 12)):
        with av.open(str(folder / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(1), width=96, height=64, pix_fmt="yuv420p")
            for value in random.integers(0, 256, (length, 3)):
                picture = np.zeros((64, 96, 3), dtype=np.uint8)
                picture[16:48, 20:70] = value
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    for name, shape in (("wide", (40, 120, 3)), ("tall", (90, 50, 3))):
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def evaluate(tmp_path, run_python):
    """Runs `python -m lmms_eval`; returns samples by task."""

    def run(model, arguments, tasks):
        for name, documents in tasks.items():
            rows = "\n".join(json.dumps(document) for document in documents)
            (tmp_path / f"{name}.jsonl").write_text(rows + "\n")
            scored = "choices" in documents[0]
            text = TASK.format(
                name=name,
                data=tmp_path / f"{name}.jsonl",
                output_type="multiple_choice" if scored else "generate_until",
                process="process_choices" if scored else "process",
            )
            text += "doc_to_choice: !function utils.choices\n" if scored else GENERATION
            (tmp_path / f"{name}.yaml").write_text(text)
        (tmp_path / "utils.py").write_text(UTILS)
        settings = {"device_map": "auto", "device": "cpu", "conv_template": "qwen_1_5", **arguments}
        command = ["-m", "lmms_eval", "--model", model, "--tasks", ",".join(tasks), "--batch_size", "1"]
        command += ["--model_args", ",".join(f"{key}={value}" for key, value in settings.items()), "--log_samples"]
        command += ["--include_path", tmp_path, "--output_path", tmp_path / "logs"]
        done = run_python(*command, cwd=REPOSITORY)
        samples = {}
        for name, documents in tasks.items():
            files = list((tmp_path / "logs").rglob(f"*samples_{name}.jsonl"))
            assert len(files) == 1, done.stdout[-3000:] + done.stderr[-3000:]
            lines = [json.loads(line) for line in files[0].read_text().splitlines()]
            samples[name] = sorted(lines, key=lambda line: line["doc_id"])
            assert len(lines) == len(documents)
        results = json.loads(next((tmp_path / "logs").rglob("*results.json")).read_text())["results"]
        for name in tasks:
            assert results[name]["seen,none"] == 1.0
        return samples

    return run


def answer(checkpoint, question, images, tokens="<image>", sizes=None):
    """What the model says when it is called as the clients do, with half-precision pixels; a video has no sizes."""
    tokenizer, model, _, _ = checkpoint
    conversation = conv_templates["qwen_1_5"].copy()
    conversation.append_message(conversation.roles[0], f"{tokens}\n{question}" if tokens else question)
    conversation.append_message(conversation.roles[1], None)
    ids = tokenizer_image_token(conversation.get_prompt(), tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt")[None]
    images = images.half() if isinstance(images, torch.Tensor) else [image.half() for image in images]
    output = model.generate(
        ids,
        images=images if len(images) else None,
        image_sizes=sizes,
        modalities=["video" if sizes is None else "image"],
        stopping_criteria=[KeywordsStoppingCriteria(["<|im_end|>"], tokenizer, ids)],
        do_sample=False,
        max_new_tokens=NUM_NEW,
    )
    return tokenizer.batch_decode(output, skip_special_tokens=True)[0].strip()


def loss(checkpoint, document, frames, text):
    """The loss that llava_vid takes for the likelihood of an answer."""
    tokenizer, model, _, _ = checkpoint
    conversation = conv_templates["qwen_1_5"].copy()
    conversation.append_message(conversation.roles[0], f"<image>\n{document['question']}")
    conversation.append_message(conversation.roles[1], None)
    start = tokenizer_image_token(conversation.get_prompt(), tokenizer)
    conversation.messages[-1][1] = text
    ids = tokenizer_image_token(conversation.get_prompt(), tokenizer, return_tensors="pt")[None]
    labels = ids.clone()
    labels[:, : len(start)] = -100
    with torch.no_grad():
        return model(input_ids=ids, labels=labels, images=[frames.half()], modalities="video")["loss"].item()


def frames_of(path, processor, indices=None):
    from decord import VideoReader

    reader = VideoReader(str(path))
    frames = reader.get_batch(list(range(len(reader))) if indices is None else indices).asnumpy()
    return processor.preprocess(frames, return_tensors="pt")["pixel_values"]


def response(sample):
    """The one answer of a sample, however deeply it is wrapped."""
    value = sample["filtered_resps"]
    while isinstance(value, list):
        value = value[0]
    return value.strip()


def test_llava_vid(evaluate, llava_golden, media):
    documents = [
        {"visuals": [str(media / f"{name}.mp4")], "question": "Which object moves first?", "answer": "B"}
        for name in "ab"
    ]
    folder = str(llava_golden / "ckpt-video")
    choices = [{**documents[1], "answer": 1, "choices": ["A. kite", "B. boat"]}]
    arguments = {"pretrained": folder, "torch_dtype": "float32"}
    samples = evaluate("llava_vid", arguments, {"clips": documents, "choices": choices})
    checkpoint = load_pretrained_model(
        folder,
        None,
        "llava_qwen",
        torch_dtype="float32",
        attn_implementation="sdpa",
        overwrite_config={"mm_spatial_pool_mode": "average", "mm_newline_position": "grid"},
    )
    for name, sample in zip("ab", samples["clips"], strict=True):
        frames = frames_of(media / f"{name}.mp4", checkpoint[2])
        assert len(frames) == {"a": 5, "b": 12}[name]
        expected = answer(checkpoint, documents[0]["question"], [frames])
        assert response(sample) == expected
    # The file holds each pair (loss, is greedy) as a list or as text.
    losses = [float(str(pair).strip("()[]").split(",")[0]) for pair in samples["choices"][0]["filtered_resps"]]
    assert losses == pytest.approx(
        [loss(checkpoint, choices[0], frames, f" {text}") for text in choices[0]["choices"]], abs=1e-3
    )


# The loglikelihood of lmms-eval 0.7.3's llava_onevision fails before it reaches a model (it reads an attribute that it
# never sets), so only its generation is run.
def test_llava_onevision(evaluate, llava_golden, media):
    clip, wide, tall = str(media / "b.mp4"), str(media / "wide.png"), str(media / "tall.png")
    clips = [{"visuals": [clip], "question": "Which object moves first?", "answer": "B"}]
    pictures = [
        {"visuals": [wide], "question": "Describe the scene.", "answer": "B"},
        {"visuals": [wide, tall], "question": "Which one is a kite?", "answer": "B"},
        {"visuals": [], "question": "Which word?", "answer": "B"},
    ]
    folder = str(llava_golden / "ckpt-ov")
    tasks = {"clips": clips, "pictures": pictures}
    samples = evaluate("llava_onevision", {"pretrained": folder, "max_frames_num": 4}, tasks)

    checkpoint = load_pretrained_model(folder, None, "llava_qwen", attn_implementation="sdpa")
    processor, config = checkpoint[2], checkpoint[1].config
    frames = frames_of(clip, processor, np.linspace(0, 11, 4, dtype=int).tolist())
    assert response(samples["clips"][0]) == answer(checkpoint, clips[0]["question"], [frames])
    opened = [Image.open(wide).convert("RGB"), Image.open(tall).convert("RGB")]
    for sample, count in zip(samples["pictures"], (1, 2, 0), strict=True):
        question, shown = pictures[sample["doc_id"]]["question"], opened[:count]
        config.image_aspect_ratio = "pad" if count > 1 else "anyres_max_9"
        images = process_images(shown, processor, config) if count else []
        tokens, sizes = " ".join(["<image>"] * count), [picture.size for picture in shown]
        assert response(sample) == answer(checkpoint, question, images, tokens, sizes)


def test_llava(evaluate, llava_golden, media):
    documents = [
        {"visuals": [str(media / f"{name}.png")], "question": "Describe the scene.", "answer": "B"}
        for name in ("wide", "tall")
    ]
    folder = str(llava_golden / "ckpt-ov")
    samples = evaluate("llava", {"pretrained": folder}, {"pictures": documents})
    checkpoint = load_pretrained_model(folder, None, "llava_qwen", attn_implementation="sdpa")
    for sample, document in zip(samples["pictures"], documents, strict=True):
        picture = Image.open(document["visuals"][0]).convert("RGB")
        images = process_images([picture], checkpoint[2], checkpoint[1].config)
        question, sizes = document["question"], [picture.size]
        assert response(sample) == answer(checkpoint, question, images, sizes=sizes)
