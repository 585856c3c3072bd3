"""Tokenisation around images, stop words and any-resolution tiles, against the golden tables."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer

from llava.image_processing import VisionImageProcessor
from llava.mm_utils import (
    KeywordsStoppingCriteria,
    expand2square,
    get_anyres_image_grid_shape,
    get_model_name_from_path,
    process_images,
    resolve_pinpoints,
    select_best_resolution,
    tokenizer_image_token,
)


@pytest.fixture(scope="module")
def tables(llava_golden):
    return json.loads((llava_golden / "text_tables.json").read_text())


@pytest.fixture(scope="module")
def tokenizer(llava_golden):
    return AutoTokenizer.from_pretrained(llava_golden / "ckpt-video")


@pytest.mark.parametrize(("kind", "folder"), [("qwen_like", "ckpt-video"), ("bos_like", "tokenizer-bos")])
def test_tokenisation_equals_the_original(llava_golden, tables, kind, folder):
    tokenizer = AutoTokenizer.from_pretrained(llava_golden / folder)
    for row in tables["tokenizer_image_token"]:
        assert tokenizer_image_token(row["prompt"], tokenizer) == row[kind]
        tensor = tokenizer_image_token(row["prompt"], tokenizer, return_tensors="pt")
        assert tensor.dtype == torch.long
        assert tensor.tolist() == row[kind]


def test_tokenisation_rejects_other_tensors(tokenizer):
    with pytest.raises(ValueError, match="return_tensors must be"):
        tokenizer_image_token("a", tokenizer, return_tensors="np")


def test_stop_words_equal_the_original(tables, tokenizer):
    for row in tables["keywords_stopping"]:
        criterion = KeywordsStoppingCriteria([row["keyword"]], tokenizer, torch.zeros(1, row["prompt_len"]))
        stop = criterion(torch.tensor([row["output_ids"]]), None)
        assert stop.shape == (1,)
        assert bool(stop) == row["stop"]


def test_a_keyword_of_several_tokens_is_compared_as_a_whole_and_per_row(tokenizer):
    keyword = tokenizer("xyz").input_ids
    assert len(keyword) > 1
    criterion = KeywordsStoppingCriteria(["xyz"], tokenizer, torch.zeros(2, 50))
    rows = torch.tensor([[7, 8, *keyword], [7, 8, *keyword[:-1], 7]])
    assert criterion(rows, None).tolist() == [True, False]


def test_model_names(tables):
    for path, name in tables["model_name_from_path"].items():
        assert get_model_name_from_path(path) == name


def test_best_resolution_table(tables):
    pinpoints = [[384 * i, 384 * j] for i in range(1, 7) for j in range(1, 7)]
    for row in tables["anyres_table_real_384"]:
        size = tuple(row["image_size_wh"])
        assert select_best_resolution(size, resolve_pinpoints(pinpoints, 384)) == tuple(row["best_resolution_wh"])
        assert get_anyres_image_grid_shape(size, pinpoints, 384) == tuple(row["grid_wh"])
        named = get_anyres_image_grid_shape(size, "(1x1),...,(6x6)", 384)
        assert named == tuple(row["string_pinpoints_1x1_6x6_grid_wh"])


def test_pinpoints_may_be_a_list_as_text():
    assert resolve_pinpoints("[(384, 768), (768, 384)]", 384) == [(384, 768), (768, 384)]


@pytest.fixture(scope="module")
def pictures(llava_golden):
    inputs = load_file(llava_golden / "image_inputs.safetensors")
    return {name: Image.fromarray(value.numpy()) for name, value in inputs.items()}


def config(**settings):
    pinpoints = [[56 * i, 56 * j] for i in range(1, 7) for j in range(1, 7)]
    return SimpleNamespace(**{"image_grid_pinpoints": pinpoints, **settings})


@pytest.mark.parametrize("name", ["wide", "tall", "small_square", "huge", "odd"])
def test_tiles_equal_the_original(llava_golden, pictures, name):
    expected = load_file(llava_golden / "image_preprocess.safetensors")
    tiles = process_images([pictures[name]], VisionImageProcessor(56), config(image_aspect_ratio="anyres_max_9"))
    assert list(tiles.shape) == expected[f"anyres_max_9.{name}.shape"].tolist()
    actual = tiles[..., ::5, ::5]
    torch.testing.assert_close(actual, expected[f"anyres_max_9.{name}.stride5"], atol=1e-6, rtol=0)


def test_other_aspect_ratios_equal_the_original(llava_golden, pictures):
    expected = load_file(llava_golden / "image_preprocess.safetensors")
    processor = VisionImageProcessor(56)
    stride = 5
    pair = [pictures["wide"], pictures["tall"]]
    padded = process_images(pair, processor, config(image_aspect_ratio="pad"))[..., ::stride, ::stride]
    square = process_images(pair[:1], processor, config(image_aspect_ratio="square"))[..., ::stride, ::stride]
    torch.testing.assert_close(padded, expected["pad.wide_tall"], atol=1e-6, rtol=0)
    torch.testing.assert_close(square, expected["square.wide"], atol=1e-6, rtol=0)
    ranged = config(image_aspect_ratio="anyres_max_9", image_grid_pinpoints="(1x1),...,(3x3)")
    shape = process_images(pair[:1], processor, ranged).shape
    assert list(shape) == expected["anyres_string_pinpoints.wide.shape"].tolist()


def test_no_aspect_ratio_is_plain_resizing(pictures):
    processor = VisionImageProcessor(56)
    expected = processor.preprocess([pictures["odd"]], return_tensors="pt")["pixel_values"]
    for settings in ({}, {"image_aspect_ratio": None}):
        assert torch.equal(process_images([pictures["odd"]], processor, config(**settings)), expected)


def test_old_aspect_ratios_are_rejected(pictures):
    with pytest.raises(ValueError, match="'highres' is not supported"):
        process_images([pictures["odd"]], VisionImageProcessor(56), config(image_aspect_ratio="highres"))


def test_squares_are_centred():
    image = Image.fromarray(np.full((2, 6, 3), 9, dtype=np.uint8))
    square = np.asarray(expand2square(image, (1, 1, 1)))
    assert square.shape == (6, 6, 3)
    assert square[:, 0, 0].tolist() == [1, 1, 9, 9, 1, 1]
