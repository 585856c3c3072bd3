"""The same weights in both formats, with the same compressor: the same answers and the same counts."""

import pytest
import torch
from transformers import LlavaOnevisionForConditionalGeneration

import stgridpool
from llava.conversion.convert import convert
from stgridpool import build_compressor

PROMPT = [151, 7, 33, -200, 12, 45, 8, 90]
METHODS = {
    "none": {},
    "st_gridpool": {"window": 4, "levels": 2, "grid_size": 2},
    "average": {},
    "divprune": {"retention": 0.3},
    "visionzip": {"retention": 0.3},
    "fastv": {"layer": 1},
    "average+sttm": {"sttm": {"layer": 1}},
}


@pytest.fixture(scope="module")
def native(llava_golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp("native") / "checkpoint"
    convert(str(llava_golden / "ckpt-video"), folder, verify=False)
    return LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


@torch.inference_mode()
@pytest.mark.parametrize("name", METHODS)
def test_both_formats_answer_alike(native, video_checkpoint, video_frames, name):
    model, frames = video_checkpoint.model, video_frames[:8]
    method = build_compressor(name, **METHODS[name])
    place, count = PROMPT.index(-200), 8 * 4 * 4 + 1
    model.compressor = None if name == "none" else method
    try:
        visual = model.encode_video(frames)
        ids = torch.tensor([PROMPT])
        expected = model.generate(ids, images=[visual], modalities=["video"], max_new_tokens=12, do_sample=False)
    finally:
        model.compressor = None
    row = PROMPT[:place] + count * [native.config.video_token_index] + PROMPT[place + 1 :]
    inputs = {"input_ids": torch.tensor([row]), "pixel_values_videos": frames[None]}
    with stgridpool.compress(native, method) as block:
        answer = native.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert answer[0, len(row) :].tolist() == expected[0].tolist()
    embeds = block.last.inputs["inputs_embeds"][0, place : place + len(visual.embeds)]
    torch.testing.assert_close(embeds, visual.embeds, rtol=1e-5, atol=1e-5)
