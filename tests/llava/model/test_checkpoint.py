"""A checkpoint before its weights are read."""

import pytest
import torch

from llava.model.checkpoint import read_checkpoint


@pytest.mark.parametrize("name", ["ckpt-video", "ckpt-ov"])
def test_an_outline_counts_as_the_model_does_and_has_no_weights(golden, name):
    checkpoint = read_checkpoint(golden / "llava" / name)
    outline = checkpoint.outline()
    side = outline.get_vision_tower().num_patches_per_side
    assert outline.own_counts(3)[0] == 3 * (-(-side // 2)) ** 2  # both checkpoints pool bilinearly, rounding up
    assert {parameter.device for parameter in outline.parameters()} == {torch.device("meta")}
    assert checkpoint.tensors.keys() >= {"model.norm.weight"}


def test_settings_can_be_overwritten(golden):
    checkpoint = read_checkpoint(golden / "llava" / "ckpt-video", overwrites={"mm_newline_position": "no_token"})
    assert checkpoint.outline().own_counts(3)[1] == 0


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no config"):
        read_checkpoint(tmp_path)
