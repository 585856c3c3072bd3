"""Processors of native checkpoints: settings that are nonsense or contradict the model are refused by name."""

import json
import math
import re

import pytest
from transformers import AutoConfig

from native_models.families import BUILDERS, build, save
from stgridpool.adapters.native_processor import check_video_settings, load_processor

pytestmark = pytest.mark.adapters


@pytest.fixture
def load_with(tmp_path):
    """Function that loads a family's processor with other settings of its video processor, or of itself."""

    def load(name="qwen2_5_vl", video=None, whole=None, config=None):
        save(name, tmp_path)
        path = tmp_path / "processor_config.json"
        settings = json.loads(path.read_text()) | (whole or {})
        settings["video_processor"] |= video or {}
        path.write_text(json.dumps(settings))
        model = AutoConfig.from_pretrained(tmp_path)
        for key, value in (config or {}).items():
            setattr(model, key, value)
        return load_processor(str(tmp_path), model)

    return load


@pytest.mark.parametrize("name", BUILDERS)
def test_processors_of_every_family_are_accepted(load_with, name):
    """Settings that a checkpoint leaves out, too."""
    processor = load_with(name)
    check_video_settings(type(processor.video_processor)().to_dict(), "x")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"patch_size": 0}, "patch_size must be an integer of at least 1, got 0"),
        ({"patch_size": 8}, "patch_size=8 contradicts patch_size=4 of vision_config in config.json"),
        ({"merge_size": 1}, "merge_size=1 contradicts spatial_merge_size=2 of vision_config in config.json"),
        ({"temporal_patch_size": 1}, "temporal_patch_size=1 contradicts temporal_patch_size=2 of vision_config"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std must be a number above 0, or one for each channel, got "),
        ({"image_mean": [math.nan] * 3}, "image_mean must be a finite number, got nan"),
        ({"rescale_factor": -1}, "rescale_factor must be a number above 0, got -1"),
        ({"size": {"shortest_edge": 0, "longest_edge": 9}}, "size must be an object of integers of at least 1, got "),
        ({"resample": 99}, "resample must be an integer from 0 to 5, got 99"),
        ({"do_resize": "x"}, "do_resize must be true or false, got 'x'"),
        ({"max_frames": 0}, "max_frames must be an integer of at least 1, got 0"),
        ({"min_frames": 9, "max_frames": 8}, "min_frames=9 must be at most max_frames=8"),
    ],
)
def test_nonsense_is_refused(load_with, tmp_path, setting, message):
    source = f"{tmp_path}: settings of {type(build('qwen2_5_vl')[1].video_processor).__name__}"
    with pytest.raises(ValueError, match=f"^{re.escape(f'{source}: {message}')}"):
        load_with(video=setting)


@pytest.mark.parametrize(
    ("name", "setting", "sides"),
    [
        ("llava_onevision", {"size": {"height": 56, "width": 28}}, (56, 28)),
        ("video_llava", {"crop_size": {"height": 24, "width": 24}}, (24, 24)),
    ],
)
def test_a_tower_of_one_size_gets_frames_of_that_size(load_with, name, setting, sides):
    side = build(name)[0].config.vision_config.image_size
    message = f"frames of {sides} contradict image_size={side} of vision_config in config.json"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_with(name, video=setting)


@pytest.mark.parametrize("key", ["image_token_id", "video_token_id"])
def test_other_placeholders_than_the_models_are_refused(load_with, key):
    with pytest.raises(
        ValueError, match=rf"config\.json: {key} must be \d, the id of the processor's '<\S+>', got 200"
    ):
        load_with(config={key: 200})


def test_a_processor_without_videos_is_refused(load_with):
    with pytest.raises(ValueError, match=r"has a \w+, which is no processor of videos; copy its files from"):
        load_with(whole={"processor_class": "Foo"})


def test_a_damaged_file_is_one_line(load_with, tmp_path):
    load_with()
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(
        ValueError, match=f"^the processor of {tmp_path} cannot be loaded: KeyError: .*; copy its files"
    ):
        load_processor(str(tmp_path), AutoConfig.from_pretrained(tmp_path))
