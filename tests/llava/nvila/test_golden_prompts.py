"""Whole prompts, against the original code: ids, embeddings, logits and answers."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from llava.constants import IMAGE_TOKEN_INDEX
from llava.encoded_video import EncodedVideo
from llava.frame_sampling import sample_nearest_frames
from llava.model.projector import DOWNSAMPLING
from llava.nvila.layout import FRAMES, VIDEO
from llava.nvila.tokenizer import VIDEO_TOKEN, rendered, stop_ids
from llava.nvila.video_model import NvilaVideoModel
from stgridpool import build_compressor
from stgridpool.finite import LogitsWatch
from stgridpool.model import generate, last_logits
from stgridpool.timing import StageTimer

ENCODINGS = {"video_token": VIDEO, "frames_as_images": FRAMES}
CASES = [
    (way, name)
    for way, names in {
        "video_token": [
            *("video." + name for name in ("one_video", "two_videos", "image_then_video", "text_between", "text_only")),
            *("video." + name for name in ("one_image", "two_images", "sampled_4_of_16", "repeated_8_of_5")),
            *("video.media_token_in_text", "base.one_video", "base.image_then_video", "base.one_image"),
            *("base.two_images", "base.text_only"),
            *("lite.one_video", "lite.image_then_video", "lite.one_image", "lite.text_only"),
        ],
        "frames_as_images": [
            *("video." + name for name in ("one_video", "two_videos", "image_then_video", "text_only")),
            *("base.one_video", "base.one_frame_video", "lite.one_video", "lite.one_frame_video"),
        ],
    }.items()
    for name in names
]


@pytest.fixture(scope="module")
def cases(nvila_golden):
    return {way: json.loads((nvila_golden / f"{way}_cases.json").read_text())["cases"] for way in ENCODINGS}


@pytest.fixture(scope="module")
def tensors(nvila_golden):
    return {way: load_file(nvila_golden / f"{way}_prompts.safetensors") for way in ENCODINGS}


@pytest.fixture(scope="module")
def models(checkpoints):
    return {name: NvilaVideoModel(one.model, one.tokenizer, one.processor) for name, one in checkpoints.items()}


def encoded_parts(model, case, inputs, pictures):
    """Encode the parts of a case; a video of one frame is an image where frames are images."""
    timer, parts = StageTimer(torch.device("cpu")), []
    num_images = sum("image" in part for part in case["parts"] if isinstance(part, dict))
    frames_are_images = model.language_model.config.video_encoding == FRAMES
    for part in case["parts"]:
        if isinstance(part, str):
            parts.append(part)
        elif "image" in part:
            shown = [pictures[part["image"]]] * num_images  # several images are encoded one by one
            parts.append(model.encode_images(shown, timer)[0])
        else:
            frames = inputs[part["video"]][part["frames"]]
            chosen, _ = sample_nearest_frames(len(frames), 1.0, case["num_video_frames"])
            if frames_are_images and len(chosen) == 1:
                parts += model.encode_images([Image.fromarray(frames[chosen[0]])], timer)
                continue
            shown = model.recipe.preprocess(frames[chosen], return_tensors="pt")["pixel_values"]
            features, evidence = model.encode(shown, (), timer)
            parts.append(model.compress(features, evidence, timer))
    return parts


def original_ids(checkpoint, model, prompt, parts):
    """Write placeholders as the original does: one for each tile, and for each frame where frames are images."""
    image, video = (checkpoint.tokenizer.convert_tokens_to_ids(token) for token in ("<image>", VIDEO_TOKEN))
    tiles = model.language_model.config.tile_end_ids
    per_image = model.language_model.projected_side**2 + 1
    visuals = iter([part for part in parts if not isinstance(part, str)])
    ids = []
    for token in prompt.ids.tolist():
        if token != IMAGE_TOKEN_INDEX:
            ids.append(token)
            continue
        visual = next(visuals)
        if getattr(visual, "is_in_tiles", False):
            count = (len(visual.embeds) + 1) // (per_image + 1)
            ids += [image, *([*tiles, image] * (count - 1))]
        elif isinstance(visual, EncodedVideo):
            is_one = model.language_model.config.video_encoding == VIDEO
            ids += [video] if is_one else [image] * visual.source_shape[0]
        else:
            ids.append(image)
    return ids


@pytest.mark.parametrize(("way", "name"), CASES)
@torch.no_grad()
def test_prompts(cases, tensors, checkpoints, models, inputs, pictures, settings, way, name):
    case, expected, checkpoint = cases[way][name], tensors[way], name.partition(".")[0]
    model = models[checkpoint]
    with settings(model.language_model.config, video_encoding=ENCODINGS[way]):
        parts = encoded_parts(model, case, inputs, pictures)
        prompt = model.prompt_of(parts)
        assert original_ids(checkpoints[checkpoint], model, prompt, parts) == case["input_ids"]
    assert [1, *prompt.embeds.shape] == case["embeds_shape"]
    if f"{name}.inputs_embeds" in expected:
        torch.testing.assert_close(prompt.embeds[None], expected[f"{name}.inputs_embeds"], rtol=0, atol=1e-4)
    logits = last_logits(model, prompt, 6)
    torch.testing.assert_close(logits[None], expected[f"{name}.logits_last6"], rtol=0, atol=1e-3)
    ids = generate(model, prompt, LogitsWatch(model.language_model), max_new_tokens=case["max_new_tokens"])[0]
    assert ids.tolist() == case["generated"]
    assert model.tokenizer.decode(ids, skip_special_tokens=True).strip() == case["response"]


@torch.no_grad()
def test_a_video_of_three_frames_as_eight_images(cases, tensors, models, inputs, pictures, settings):
    """The tensors `video.fails` are in no list of cases; they are the question of the others about frames 0 to 2."""
    question = cases["frames_as_images"]["video.one_video"]["parts"][1]
    case = {"parts": [{"video": "frames_a", "frames": [0, 1, 2]}, question], "num_video_frames": 8}
    model, expected = models["video"], tensors["frames_as_images"]
    with settings(model.language_model.config, video_encoding=FRAMES):
        prompt = model.prompt_of(encoded_parts(model, case, inputs, pictures))
    torch.testing.assert_close(prompt.embeds[None], expected["video.fails.inputs_embeds"], rtol=0, atol=1e-4)
    logits = last_logits(model, prompt, 6)
    torch.testing.assert_close(logits[None], expected["video.fails.logits_last6"], rtol=0, atol=1e-3)


def test_no_tensor_is_left_out(cases, tensors):
    for way, values in tensors.items():
        left = {name.rpartition(".")[0] for name in values} - cases[way].keys()
        assert left == ({"video.fails"} if way == "frames_as_images" else set())


ST_GRIDPOOL = {
    "video.released": {"name": "st_gridpool"},
    "video.f_1_2_4": {"name": "st_gridpool", "preset": "paper"},
    "video.nsp": {"name": "nsp"},
    "lite.nsp": {"name": "nsp"},
}


@pytest.fixture(scope="module")
def st_gridpool_cases(nvila_golden):
    return json.loads((nvila_golden / "stgridpool_cases.json").read_text())["cases"]


@pytest.mark.parametrize("name", ST_GRIDPOOL)
@torch.no_grad()
def test_st_gridpool_in_place_of_the_pooling_over_time(
    nvila_golden, st_gridpool_cases, cases, checkpoints, models, pixels, name
):
    case, checkpoint = st_gridpool_cases[name], name.partition(".")[0]
    model, timer = models[checkpoint], StageTimer(torch.device("cpu"))
    shown = pixels("lite", "frames_a", slice(0, 4))
    if checkpoint == "video":
        shown = torch.cat([pixels("video", "frames_a"), pixels("video", "frames_b")])
    model.compressor = build_compressor(**ST_GRIDPOOL[name])
    try:
        video = model.compress(*model.encode(shown, (), timer), timer)
        prompt = model.prompt_of([video, cases["video_token"][f"{checkpoint}.one_video"]["parts"][1]])
        ids = generate(model, prompt, LogitsWatch(model.language_model), max_new_tokens=case["max_new_tokens"])[0]
    finally:
        model.compressor = None
    media = load_file(nvila_golden / "stgridpool.safetensors")[f"{name}.media"]
    torch.testing.assert_close(video.embeds, media, rtol=0, atol=1e-4)
    assert original_ids(checkpoints[checkpoint], model, prompt, [video]) == case["input_ids"]
    assert [1, *prompt.embeds.shape] == case["embeds_shape"]
    assert ids.tolist() == case["generated"]


def test_every_case_is_tested(cases, st_gridpool_cases):
    assert st_gridpool_cases.keys() == ST_GRIDPOOL.keys()
    assert {(way, name) for way in cases for name in cases[way]} == set(CASES)


def test_frames_are_sampled_to_the_nearest(nvila_golden):
    for name, expected in json.loads((nvila_golden / "text_tables.json").read_text())["frame_indices"].items():
        num_frames, count = map(int, name.split(","))
        indices, times = sample_nearest_frames(num_frames, 4.0, count)
        assert indices == expected
        assert times == [index / 4 for index in indices]
    assert np.round(0.5) == 0  # half to even, as in the original


ROLES = {"human": "user", "gpt": "assistant"}


def test_chat_templates(nvila_golden, checkpoints):
    for name, case in json.loads((nvila_golden / "text_tables.json").read_text())["templates"].items():
        tokenizer = checkpoints[name.removeprefix("ckpt-").partition(".")[0]].tokenizer
        turns = [{"role": ROLES[who], "content": text.strip()} for who, text in case["conversation"]]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert text == case["text"]
        if len(turns) == 1:
            assert rendered(tokenizer, turns[0]["content"]) == text
        assert tokenizer(case["text"]).input_ids == case["input_ids"]


def test_tokens_and_the_end_of_answers(nvila_golden, checkpoints):
    for name, expected in json.loads((nvila_golden / "models.json").read_text()).items():
        checkpoint = checkpoints[name.removeprefix("ckpt-")]
        tokenizer, model = checkpoint.tokenizer, checkpoint.model
        assert len(tokenizer) == expected["len_tokenizer"]
        assert model.get_input_embeddings().weight.shape[0] == expected["embedding_rows_on_disk"]
        media = {"image": "<image>", "video": VIDEO_TOKEN}
        assert {kind: tokenizer.convert_tokens_to_ids(token) for kind, token in media.items()} == (
            expected["media_token_ids"]
        )
        assert tokenizer.convert_tokens_to_ids("<vila/sentinel>") == expected["sentinel_token_id"]
        assert stop_ids(tokenizer) == expected["stop_token_ids"] == model.generation_config.eos_token_id
        assert model.projected_side**2 == expected["tokens_per_frame"]
        assert checkpoint.processor.size == (expected["image_processor_size"]["height"],) * 2
        assert (
            model.for_projector(torch.zeros(1, 1, model.get_vision_tower().hidden_size)).shape[2]
            == (expected["mm_hidden_size"])
        )
        assert DOWNSAMPLING[model.config.mm_projector_type] == expected["downsample_rate"]
        assert model.config.pool_sizes == expected["encoders"]["video"]["pool_sizes"]
        for kind, encoder in expected["encoders"].items():
            for place in ("start", "end", *(["sep"] if kind == "video" else [])):
                text = encoder[f"{place}_tokens"]
                assert getattr(model.config, f"{kind}_{place}_ids") == (tokenizer(text).input_ids if text else [])
        for setting in ("do_sample", "repetition_penalty", "temperature", "top_p", "top_k"):
            assert getattr(model.generation_config, setting) in (None, expected["default_generation_config"][setting])
