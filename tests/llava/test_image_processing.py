"""Pixel values: the golden numbers, transformers' CLIP processor, input kinds."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from llava.image_processing import CLIP_MEAN, CLIP_STD, VisionImageProcessor

NOISE = np.random.default_rng(7).integers(0, 256, (2, 37, 53, 3), dtype=np.uint8)


def pixels(processor, images):
    return processor.preprocess(images, return_tensors="pt")["pixel_values"]


def test_equals_the_original(llava_golden):
    inputs = load_file(llava_golden / "video_inputs.safetensors")
    expected = load_file(llava_golden / "video_preprocess.safetensors")
    small, large = VisionImageProcessor(98), VisionImageProcessor(384)
    frame, picture = inputs["frames"].numpy()[:1], inputs["frame_large"].numpy()
    at_384 = pixels(large, picture)
    for actual, name in [
        (pixels(small, frame), "pixel_values_frame0"),
        (pixels(small, picture), "pixel_values_large"),
        (at_384[:, :, ::8, ::8], "pixel_values_large_384_stride8"),
        (torch.stack([at_384.mean(), at_384.std()]), "pixel_values_large_384_mean_std"),
    ]:
        torch.testing.assert_close(actual, expected[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(37, 53), (53, 37), (40, 40), (20, 21)])
def test_clip_preprocessing_equals_transformers(shape):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8))
    reference = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    expected = reference(image, return_tensors="pt")["pixel_values"]
    processor = VisionImageProcessor(28, CLIP_MEAN, CLIP_STD, keep_aspect=True)
    torch.testing.assert_close(pixels(processor, image), expected, atol=1e-6, rtol=0)


def test_arrays_lists_and_single_images_agree():
    processor = VisionImageProcessor(20)
    expected = pixels(processor, NOISE)
    assert expected.shape == (2, 3, 20, 20)
    assert expected.dtype == torch.float32
    assert torch.equal(pixels(processor, list(NOISE)), expected)
    assert torch.equal(pixels(processor, [Image.fromarray(frame) for frame in NOISE]), expected)
    assert torch.equal(pixels(processor, NOISE[1]), expected[1:])
    assert np.array_equal(processor.preprocess(NOISE)["pixel_values"], expected.numpy())


def test_every_mode_becomes_rgb():
    grey = Image.fromarray(NOISE[0, :, :, 0])
    values = pixels(VisionImageProcessor(16), [grey, Image.fromarray(NOISE[0]).convert("RGBA")])
    assert torch.equal(values[0, 0], values[0, 2])


def test_attributes_that_scripts_read():
    siglip, clip = VisionImageProcessor(98), VisionImageProcessor(28, CLIP_MEAN, CLIP_STD, keep_aspect=True)
    assert siglip.size == (98, 98)
    assert clip.size == {"shortest_edge": 28}
    assert siglip.crop_size == {"height": 98, "width": 98}
    assert siglip.image_mean == siglip.image_std == (0.5, 0.5, 0.5)
    assert siglip.rescale_factor == 1 / 255


def test_errors():
    with pytest.raises(ValueError, match="at least one image"):
        VisionImageProcessor(8).preprocess([])
    with pytest.raises(ValueError, match="return_tensors must be"):
        VisionImageProcessor(8).preprocess(NOISE, return_tensors="tf")
