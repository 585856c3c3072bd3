"""What unmodified models and processors cannot do, so that there is nothing to compare with."""

from __future__ import annotations

import pytest
import transformers
from packaging.version import Version

ONE_FRAME = "a video of one frame"
WITH_IMAGE = "an image and a video in a prompt"
TWO_VIDEOS = "two videos in a prompt"
UNEQUAL = "videos of unequal frame counts in a batch"
OWN_TEXT = "a text of its own for each of unequal videos in a batch"
BEAMS = "beams"
MASKED_TOKENS = "masking tokens out"

_TOO_SHORT = "its processor refuses a video shorter than two frames"
_NOT_STACKED = "its processor stacks the videos of a batch"
_VERSION = Version(transformers.__version__)
_CANNOT = {
    ("llava_onevision", UNEQUAL): _NOT_STACKED,
    ("llava_next_video", UNEQUAL): _NOT_STACKED,
    ("video_llava", UNEQUAL): _NOT_STACKED,
    ("internvl", UNEQUAL): _NOT_STACKED,
    ("qwen3_vl", ONE_FRAME): _TOO_SHORT,
    ("qwen3_vl_moe", ONE_FRAME): _TOO_SHORT,
    ("qwen3_5", ONE_FRAME): _TOO_SHORT,
    ("qwen3_5_moe", ONE_FRAME): _TOO_SHORT,
    ("glm4v", ONE_FRAME): _TOO_SHORT,
    ("glm4v_moe", ONE_FRAME): _TOO_SHORT,
    ("glm4v", WITH_IMAGE): "it counts the placeholders of frames among those of images",
    ("glm4v_moe", WITH_IMAGE): "it counts the placeholders of frames among those of images",
    ("smolvlm", WITH_IMAGE): "its processor overwrites the pixels of images with those of videos",
    ("smolvlm", OWN_TEXT): "its processor tells all prompts of the largest number of frames",
    ("molmo2", WITH_IMAGE): "it refuses images beside videos",
    ("molmo2", TWO_VIDEOS): "its processor refuses more than one video in a prompt",
    ("qwen3_5", MASKED_TOKENS): "masked tokens still change the state of linear attention",
    ("qwen3_5_moe", MASKED_TOKENS): "masked tokens still change the state of linear attention",
}
if Version("5.18") > _VERSION:
    _CANNOT["internvl", BEAMS] = "5.17 mixes up the pictures of a batch"
else:
    _CANNOT["glm4v", BEAMS] = _CANNOT["glm4v_moe", BEAMS] = "5.18 and later concatenate an empty list"


def skip_unless_possible(name: str, what: str) -> None:
    """Skip the test, with the reason, if the unmodified model of a family or its processor cannot do this."""
    if reason := _CANNOT.get((name, what)):
        pytest.skip(f"{name} cannot do {what}: {reason}")
