"""Settings of images, and what the native class cannot express, setting by setting."""

import pytest

from llava.conversion.native_config import limits, native_aspect_ratio, native_pinpoints
from llava.model.language_model.llava_qwen import LlavaQwenConfig


def test_pinpoints_are_height_first():
    assert native_pinpoints([[384, 768], [1152, 384]], 384) == [[768, 384], [384, 1152]]
    assert native_pinpoints("(1x1),...,(2x3)", 384) == [
        [height, width] for width in (384, 768) for height in (384, 768, 1152)
    ]
    assert native_pinpoints(None, 98)[:7] == [[98, 98 * n] for n in range(1, 7)] + [[196, 98]]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("anyres_max_4", "anyres_max_4"), ("anyres", "anyres_max_6"), ("pad", "anyres_max_9"), (None, "anyres_max_9")],
)
def test_anyres_becomes_a_limit_that_no_image_reaches(mode, expected):
    assert native_aspect_ratio(mode, [[98, 98], [196, 294]], 98) == expected  # at most 2 x 3 tiles


SILENT = {"mm_newline_position": "one_token", "mm_spatial_pool_mode": "bilinear", "image_aspect_ratio": "anyres_max_9"}
ALWAYS = "preprocessing: the processor resizes with torchvision, not PIL; pixels differ by up to 2 of 255"


def test_says_no_more_than_there_is():
    assert limits(SILENT, {}, LlavaQwenConfig(**SILENT)) == [ALWAYS]


@pytest.mark.parametrize(
    ("setting", "generation", "note"),
    [
        ({"mm_newline_position": "grid"}, {}, "mm_newline_position=grid: the native class puts one newline after"),
        ({"mm_spatial_pool_mode": "average"}, {}, "mm_spatial_pool_mode=average: the native class pools bilinearly"),
        ({"add_time_instruction": True}, {}, "add_time_instruction: the sentence with the frames' times"),
        ({"force_sample": True}, {}, "force_sample: the processor takes all frames"),
        ({"image_aspect_ratio": "pad"}, {}, "image_aspect_ratio=pad: the native class always cuts images into tiles"),
        ({"mm_use_im_start_end": True}, {}, "mm_use_im_start_end: the chat template puts no start and end tokens"),
        ({}, {"repetition_penalty": 1.05}, "repetition_penalty=1.05: LLaVA-NeXT applies it to the answer"),
        ({"use_pos_skipping": False}, {}, "settings that are only kept for the way back, in llava_config: use_pos"),
    ],
)
def test_names_what_is_lost(setting, generation, note):
    settings = {**SILENT, **setting}
    found = limits(settings, generation, LlavaQwenConfig(**settings))
    assert len(found) == 2
    assert any(line.startswith(note) for line in found), found
