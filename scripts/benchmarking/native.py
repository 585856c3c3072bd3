"""``native``: what `stgridpool.compress` saves on a native model of transformers, from the processor's output on.

Every row answers the same question about the same frames: first the model outside a block, then inside one with no
method, which must answer alike, then with each method.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Column, Table
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.video_utils import VideoMetadata

import stgridpool
from benchmarking.measuring import DTYPES, best_ms, device_name, peak_bytes, reset_peak
from benchmarking.random_model import fill
from benchmarking.reporting import add_output_options, report
from lmms_eval_stgridpool.comparison.choice import Choice
from lmms_eval_stgridpool.kept.paths import path_argument
from stgridpool.adapters.native_loading import load_native
from stgridpool.retention import DEFINITIONS

QUESTION = "What happens in this video? Answer in one sentence."
FPS = 2.0  # of the frames, as told to the processor
UNMODIFIED, INSIDE = "unmodified", "none"
ALL = [name for name in stgridpool.COMPRESSORS if name != INSIDE]


def add_parser(commands: Any) -> None:
    """Add the command to the parsers `commands`."""
    parser = commands.add_parser(
        "native",
        help="time a native model of transformers with and without compression",
        description="Milliseconds from the processor's output, the vision tower included, to the first new token and "
        "to the last; the peak memory on a GPU includes the weights.",
    )
    parser.add_argument("checkpoint", type=path_argument, help="folder of a supported native model")
    parser.add_argument("--random-weights", action="store_true", help="draw weights on the device, seed 0")
    parser.add_argument("--methods", nargs="+", default=["st_gridpool", "vidcom2", "fastv"], metavar="METHOD[:JSON]")
    parser.add_argument(
        "--all",
        dest="methods",
        action="store_const",
        const=ALL,
        help="all methods; those that this model or this retention cannot have are named with the reason",
    )
    parser.add_argument("--retention", type=float, default=0.25, help="of every method (default: %(default)s)")
    parser.add_argument(
        "--retention-of",
        choices=DEFINITIONS,
        default="layer_average",
        help="what retention is a share of; the default also holds for methods inside the language model",
    )
    parser.add_argument("--frames", type=int, default=64, help="frames of the video (default: %(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=[360, 640], metavar=("H", "W"), help="of a frame")
    parser.add_argument("--new-tokens", type=int, default=32, help="tokens of the answer (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each row (default: %(default)s)")
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: bfloat16 on a GPU, float32 on the CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    numbers = benchmark_native(arguments)
    report(arguments, numbers, numbers, partial(print_native, numbers))


@torch.inference_mode()
def benchmark_native(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time the model of `arguments`; see `add_parser`.

    Raises:
        RuntimeError: If a block without a method changes the logits.
    """
    device = torch.device(arguments.device)
    dtype = DTYPES[arguments.dtype or ("bfloat16" if device.type == "cuda" else "float32")]
    model, processor = load(arguments, device, dtype)
    inputs = processed(processor, arguments).to(device, dtype)
    rows = [_row(model, inputs, UNMODIFIED, nullcontext, arguments)]
    block = partial(stgridpool.compress, model, positions="hf")  # text then stands where the unmodified model has it
    blocks = {INSIDE: partial(block, None)}
    for choice in map(Choice.parse, arguments.methods):
        blocks[choice.folder] = partial(block, choice.build(), retention=arguments.retention, of=arguments.retention_of)
    expected = model(**inputs, logits_to_keep=1).logits
    with blocks[INSIDE]():
        if not torch.equal(model(**inputs, logits_to_keep=1).logits, expected):
            raise RuntimeError("a block of stgridpool.compress without a method changed the logits")
    left_out = {}
    for name, block in blocks.items():
        Console(stderr=True).print(f"[dim]{name} …")
        try:
            rows.append(_row(model, inputs, name, block, arguments))
        except ValueError as error:
            if arguments.methods != ALL:
                raise
            left_out[name] = str(error)
    return {
        "model_type": model.config.model_type,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights": "random, seed 0" if arguments.random_weights else arguments.checkpoint.name,
        "device": device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "data": "random frames, seed 0",
        "frames": arguments.frames,
        "prompt_tokens": inputs["input_ids"].shape[1],
        "new_tokens": arguments.new_tokens,
        "retention": arguments.retention,
        "retention_of": arguments.retention_of,
        "rows": [row | {"ratio_to_unmodified": round(rows[0]["answer_ms"] / row["answer_ms"], 2)} for row in rows],
        "left_out": left_out,
    }


def load(arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """Load the model and its processor, or draw the model's weights where it will work."""
    if not arguments.random_weights:
        return load_native(str(arguments.checkpoint), device_map=str(device), dtype=dtype, attn_implementation=None)
    config = AutoConfig.from_pretrained(arguments.checkpoint)
    with device:
        model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    fill(model, torch.Generator(device).manual_seed(0))
    model.generation_config.eos_token_id = None  # answers have the length that was asked for
    return model.eval(), AutoProcessor.from_pretrained(arguments.checkpoint)


def processed(processor: Any, arguments: argparse.Namespace) -> Any:
    """Return the processor's output for the question about a video of random frames."""
    height, width = arguments.size
    shape = (arguments.frames, height, width, 3)
    frames = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    content = [{"type": "video"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    metadata = VideoMetadata(
        arguments.frames, FPS, arguments.frames / FPS, frames_indices=list(range(arguments.frames))
    )
    return processor(
        text=[text], videos=[frames], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
    )


def _row(
    model: Any,
    inputs: Any,
    name: str,
    block: Callable[[], AbstractContextManager[Any]],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Time one way of answering."""
    device = inputs["input_ids"].device

    def answer(count: int) -> Any:
        return model.generate(**inputs, do_sample=False, min_new_tokens=count, max_new_tokens=count)

    with block() as active:
        first_ms, answer_ms = best_ms(
            [partial(answer, 1), partial(answer, arguments.new_tokens)], arguments.rounds, device
        )
        reset_peak(device)
        answer(1)
        removed = 0 if active is None else active.last.num_removed
    return {
        "method": name,
        "tokens_in_front": inputs["input_ids"].shape[1] - removed,
        "first_token_ms": round(first_ms, 1),
        "answer_ms": round(answer_ms, 1),
        "peak_memory_bytes": peak_bytes(device),
    }


def print_native(numbers: dict[str, Any]) -> None:
    """Print the table."""
    title = "{model_type}, {weights}, {dtype}, {device}; {frames} frames, {new_tokens} new tokens".format(**numbers)
    table = Table(Column("method", no_wrap=True), title=title)
    for column in ("prompt tokens", "first token, ms", "answer, ms", "times as fast", "peak memory, GB"):
        table.add_column(column, justify="right")
    for row in numbers["rows"]:
        memory = row["peak_memory_bytes"]
        table.add_row(
            row["method"],
            str(row["tokens_in_front"]),
            f"{row['first_token_ms']:.1f}",
            f"{row['answer_ms']:.1f}",
            f"{row['ratio_to_unmodified']:.2f}",
            "" if memory is None else f"{memory / 1e9:.2f}",
        )
    Console().print(table)
    for method, reason in numbers["left_out"].items():
        Console().print(f"left out: {method}: {reason}", markup=False, highlight=False)
