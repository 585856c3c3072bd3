"""Pixels, features of the tower and the projector, and media embeddings, against the original code."""

import json

import pytest
import torch
from safetensors.torch import load_file

from llava.mm_utils import process_images
from llava.nvila.encoders import MediaEncoder
from llava.nvila.layout import FRAMES
from llava.nvila.tiles import s2_blocks

NAMES = ("video", "base", "lite")


@pytest.fixture(scope="module")
def expected(nvila_golden):
    return {name: load_file(nvila_golden / f"{name}.safetensors") for name in ("preprocess", "features", "media")}


def close(got, wanted, atol):
    torch.testing.assert_close(got, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["video", "base"])
def test_pixels_of_frames(expected, pixels, name):
    got = pixels(name, "frames_a", slice(0, 2))
    wanted = expected["preprocess"]
    close(got[..., ::3, ::3], wanted[f"ckpt-{name}.frames_a.stride3"], 1e-6)
    if name == "video":
        close(got[:1], wanted["ckpt-video.frames_a.0"], 1e-6)
        close(pixels(name, "frame_large"), wanted["ckpt-video.frame_large"], 1e-6)


@pytest.mark.parametrize("image", ["wide", "tall", "square", "odd"])
@pytest.mark.parametrize(("name", "mode"), [("base", "dynamic_s2"), ("lite", "dynamic")])
def test_pixels_of_a_single_image(expected, checkpoints, pictures, name, mode, image):
    checkpoint = checkpoints[name]
    [got] = process_images([pictures[image]], checkpoint.processor, checkpoint.model.config)
    close(got[..., ::5, ::5], expected["preprocess"][f"ckpt-{name}.{mode}.{image}.stride5"], 1e-6)


@pytest.mark.parametrize("name", ["base", "lite"])
def test_several_images_are_not_tiled(checkpoints, pictures, name):
    checkpoint = checkpoints[name]
    got = process_images([pictures["wide"], pictures["tall"]], checkpoint.processor, checkpoint.model.config)
    close(
        got,
        checkpoint.processor.preprocess([pictures["wide"], pictures["tall"]], return_tensors="pt")["pixel_values"],
        0,
    )


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_features_and_projected_features(expected, checkpoints, pixels, name):
    model, frames = checkpoints[name].model, {"video": 8}.get(name, 4)
    shown = pixels(name, "frames_a", slice(0, frames))
    features, _ = model.vision_features(shown)
    if name != "lite":
        close(features[:2], expected["features"][f"ckpt-{name}.tower.frames_a.0_2"], 1e-4)
    close(model.project(features), expected["features"][f"ckpt-{name}.projected.frames_a.0_{frames}"], 1e-4)


@pytest.mark.parametrize("image", ["wide", "tall", "square", "odd"])
@torch.no_grad()
def test_an_image_at_several_scales(expected, nvila_golden, checkpoints, pictures, image):
    checkpoint, picture = checkpoints["base"], pictures[image]
    counts = json.loads((nvila_golden / "text_tables.json").read_text())["dynamic_s2_images"][image]
    shown = process_images([picture], checkpoint.processor, checkpoint.model.config)
    assert shown[0].shape[0] == counts["tiles"]
    config = checkpoint.model.config
    assert list(s2_blocks(picture.size, config.s2_scales, config.max_tiles)) == counts["block_size_h_w"]
    [tokens] = checkpoint.model.encode_visuals(shown, ("image",), [picture.size])
    assert len(tokens) == counts["tokens"] + 1
    close(tokens[:-1], expected["features"][f"ckpt-base.dynamic_s2.{image}"], 1e-4)


def ids_of(checkpoint, text):
    return checkpoint.tokenizer(text).input_ids if text else []


@pytest.fixture(scope="module")
def media_cases(nvila_golden):
    return json.loads((nvila_golden / "media_cases.json").read_text())


@torch.no_grad()
def test_media_embeddings_of_every_video_encoder(expected, checkpoints, pixels, media_cases, settings):
    checkpoint, shown = checkpoints["video"], pixels("video", "frames_a", slice(0, 8))
    for name, case in media_cases["cases"].items():
        if not name.startswith(("video.tsp", "video.basic")):
            continue
        named = {key: case[key] for key in ("pool_sizes", "start_tokens", "end_tokens", "sep_tokens") if key in case}
        encoder = MediaEncoder.of("video_encoder", {"_target_": f"x.{case['class']}", **named}, "config.json")
        ids = {
            "video_start_ids": ids_of(checkpoint, encoder.start),
            "video_end_ids": ids_of(checkpoint, encoder.end),
            "video_sep_ids": ids_of(checkpoint, encoder.sep),
        }
        with settings(checkpoint.model.config, pool_sizes=[list(size) for size in encoder.pool_sizes], **ids):
            video = checkpoint.model.encode_video(shown)
            assert checkpoint.model.own_counts(8) == (video.num_tokens, video.num_newlines), name
        close(video.embeds, expected["media"][name], 1e-4)
        span = video.span(3)
        assert len(span.tokens) == video.num_tokens
        assert sorted([*span.tokens.tolist(), *span.newlines.tolist()]) == list(range(3, 3 + len(video.embeds))), name


@torch.no_grad()
def test_media_embeddings_by_the_checkpoint_itself(expected, checkpoints, pixels):
    model = checkpoints["video"].model
    for index, shown in enumerate([("frames_a", slice(0, 8)), ("frames_b", slice(4, 8))]):
        close(
            model.encode_video(pixels("video", *shown)).embeds, expected["media"][f"video.own_two_videos.{index}"], 1e-4
        )
    images = pixels("video", "frames_a", [0, 3])
    close(torch.stack(model.encode_visuals(images)), expected["media"]["image.basic"], 1e-4)


@torch.no_grad()
def test_frames_that_a_pooling_does_not_divide_end_with_repeats(checkpoints, pixels, media_cases, caplog):
    """The original raises a RuntimeError here."""
    assert media_cases["not_divisible"]["raises"] == "RuntimeError"
    model, shown = checkpoints["video"].model, pixels("video", "frames_a", slice(0, 6))
    completed = torch.cat([shown, shown[-1:], shown[-1:]])
    close(model.encode_video(shown).embeds, model.encode_video(completed).embeds, 1e-5)
    assert "6 frames are not a multiple of 4" in caplog.text


@torch.no_grad()
def test_frames_as_images_are_not_pooled_over_time(expected, checkpoints, pixels, settings):
    model, shown = checkpoints["video"].model, pixels("video", "frames_a", slice(0, 8))
    with settings(model.config, video_encoding=FRAMES):
        close(model.encode_video(shown).embeds, expected["media"]["video.tsp_1_1_1"], 1e-4)
        assert model.own_counts(8) == (72, 8)
