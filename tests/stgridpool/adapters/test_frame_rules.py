"""Which frames a native model gets; expected values follow from the rates and limits that the families publish."""

import numpy as np
import pytest

from native_models.families import BUILDERS, build
from stgridpool.adapters.families import adapter_for
from stgridpool.adapters.frame_rules import OwnRule, Source

pytestmark = pytest.mark.adapters


def rule(name, **options):
    model, processor = build(name)
    return OwnRule(processor.video_processor, adapter_for(model).sampling, **options)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llava_onevision", [7 * index + index // 2 for index in range(32)]),  # every 7.5th of 240
        ("qwen2_vl", list(range(0, 240, 12))),  # two per second, from the first on
        ("qwen2_5_vl", list(range(0, 240, 12))),
        ("qwen3_vl", np.linspace(0, 239, 20).round().astype(int).tolist()),  # as many, with the last
        ("glm4v", list(range(0, 240, 12))),
        ("video_llama_3", list(range(0, 240, 24))),  # one per second
        ("video_llava", list(range(0, 240, 30))),  # 8
        ("internvl", list(range(15, 240, 30))),  # the middles of 8 parts
    ],
)
def test_each_family_samples_ten_seconds_in_its_own_way(name, expected):
    assert rule(name).choose(Source(240, 24.0)) == expected


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("num_frames", [1, 2, 3, 5, 40])
def test_short_videos_give_frames_that_they_have(name, num_frames):
    chosen = rule(name).choose(Source(num_frames, 24.0))
    assert chosen == sorted(chosen)
    assert 0 <= chosen[0] <= chosen[-1] < num_frames


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_a_single_frame_is_repeated_to_fill_a_token(name):
    assert rule(name).choose(Source(1, 24.0)) == [0, 0]


def test_rate_and_maximum_are_those_of_the_user():
    assert rule("qwen2_5_vl", fps=1).choose(Source(240, 24.0)) == list(range(0, 240, 24))
    assert rule("qwen2_5_vl", max_frames_num=4).choose(Source(241, 24.0)) == [0, 80, 160, 240]
    assert rule("qwen3_vl", fps=4, max_frames_num=100).choose(Source(240, 24.0))[:3] == [0, 6, 12]
