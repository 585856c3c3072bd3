"""LLaVA-Video's layouts of newlines on the native class: ids of the original code, and embeddings of `llava`."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaOnevisionForConditionalGeneration

from llava.conversion.convert import convert
from llava.model.builder import load_pretrained_model
from stgridpool import build_compressor
from stgridpool.adapters import adapter_for, compress_inputs

COUNTS = {"grid": 4 * 4 * 5, "frame": 4 * 17, "one_token": 65, "no_token": 64}  # four frames of 4x4 tokens
pytestmark = pytest.mark.adapters


@pytest.fixture(scope="module")
def both(golden, tmp_path_factory):
    """The same weights in both formats, pixel values of 64 frames, and what the original code generated."""
    folder = tmp_path_factory.mktemp("native") / "checkpoint"
    convert(str(golden / "llava" / "ckpt-video"), folder, verify=False)
    native = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    _, original, processor, _ = load_pretrained_model(
        str(golden / "llava" / "ckpt-video"), None, None, torch_dtype="float32", attn_implementation="sdpa"
    )
    frames = load_file(golden / "llava" / "video_inputs.safetensors")["frames"].numpy()
    cases = json.loads((golden / "llava" / "video_cases.json").read_text())["generate"]
    pixels = processor.preprocess(frames, return_tensors="pt")["pixel_values"]
    return SimpleNamespace(native=native, original=original, pixels=pixels, cases=cases)


@pytest.fixture
def layout(both, monkeypatch):
    """Function that sets the layout of both models."""

    def set_layout(position):
        monkeypatch.setattr(both.native.config, "mm_newline_position", position)
        monkeypatch.setattr(both.original.config, "mm_newline_position", position)

    return set_layout


def inputs_of(both, ids, frames):
    """What a processor makes of a golden prompt: a placeholder for each token of 4x4 per frame, and one after them."""
    place, count = ids.index(-200), 16 * len(frames) + 1
    prompt = torch.tensor([[*ids[:place], *count * [both.native.config.video_token_index], *ids[place + 1 :]]])
    return {"input_ids": prompt, "attention_mask": torch.ones_like(prompt), "pixel_values_videos": frames[None]}


@pytest.mark.parametrize(
    ("name", "position", "method"),
    [
        ("video_grid", "grid", None),
        ("video_frame", "frame", None),
        ("video_one_token", "one_token", None),
        ("video_no_token", "no_token", None),
        ("video_T16_average", "grid", build_compressor("average", kernel_size=2)),
    ],
)
def test_ids_are_those_of_the_original_code(both, layout, name, position, method):
    layout(position)
    case = both.cases[name]
    inputs = inputs_of(both, case["input_ids"], both.pixels[slice(*case["images"][0])])
    prompt = compress_inputs(both.native, inputs, method)
    text = len(case["input_ids"]) - 1
    expected = COUNTS[position] if method is None else 16 * 3 * 4  # 16 frames of 3x3, a newline after each row
    assert prompt.inputs["input_ids"].shape == (1, text + expected)
    with prompt.prefilling(adapter_for(both.native), both.native), torch.no_grad():
        answer = both.native.generate(**prompt.inputs, max_new_tokens=20, do_sample=False)
    assert answer[0, text + expected :].tolist() == case["ids"]


@pytest.mark.parametrize("position", list(COUNTS))
@pytest.mark.parametrize("name", ["st_gridpool", "evs", "temporal_average", "bilinear+divprune"])
def test_embeddings_are_those_of_llava(both, layout, monkeypatch, name, position):
    layout(position)
    method = build_compressor(name)
    monkeypatch.setattr(both.original, "compressor", method)
    pixels = both.pixels[:8]
    with torch.no_grad():
        expected = both.original.encode_video(pixels)
    prompt = compress_inputs(both.native, inputs_of(both, [5, 6, -200, 7], pixels), method)
    embeds = prompt.inputs["inputs_embeds"][0, 2:-1]
    assert embeds.shape == expected.embeds.shape
    assert torch.allclose(embeds, expected.embeds, atol=2e-5)
    (span,) = prompt.spans[0]
    assert len(span.newlines) == expected.num_newlines
    newline = both.native.model.image_newline
    assert torch.equal(prompt.inputs["inputs_embeds"][0, span.newlines], newline.expand(len(span.newlines), -1))


def test_several_videos_and_prompts_of_different_lengths(both, layout):
    layout("grid")
    first, second = (both.pixels[start : start + 2] for start in (0, 20))
    video = 33 * [both.native.config.video_token_index]
    ids = torch.tensor([[0] * 34 + [5, *video, 6], [5, *video, 7, *video, 8]])
    mask = torch.tensor([[0] * 34 + [1] * 35, [1] * 69])
    inputs = {"input_ids": ids, "attention_mask": mask, "pixel_values_videos": torch.stack([first, second, first])}
    prompt = compress_inputs(both.native, inputs, build_compressor("evs", tokens=9))
    assert prompt.inputs["attention_mask"].sum(1).tolist() == [
        2 + sum(len(span.tokens) + len(span.newlines) for span in spans) + (len(spans) - 1) for spans in prompt.spans
    ]
    embeds = prompt.inputs["inputs_embeds"]
    padding = [embeds.shape[1] - int(length) for length in prompt.inputs["attention_mask"].sum(1)]
    for row, spans in enumerate(prompt.spans):
        for span in spans:
            assert torch.equal(
                embeds[row, padding[row] + span.newlines],
                both.native.model.image_newline.expand(len(span.newlines), -1),
            )


def test_refuses_an_unknown_layout_and_places_that_do_not_exist(both, layout):
    layout("rows")
    with pytest.raises(ValueError, match=r"mm_newline_position cannot be 'rows'\. Available: grid, frame, one_token"):
        compress_inputs(both.native, inputs_of(both, [5, -200, 6], both.pixels[:2]), None)
    layout("grid")
    with pytest.raises(ValueError, match="positions='survive' has no places for newlines after rows or frames"):
        compress_inputs(both.native, inputs_of(both, [5, -200, 6], both.pixels[:2]), None, positions="survive")
