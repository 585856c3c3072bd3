from dataclasses import fields

import pytest
from lmms_eval.utils import simple_parse_args_string

from lmms_eval_stgridpool.arguments import DETERMINISTIC_VISION_BATCH, Arguments
from stgridpool import build_compressor


def parse(text):
    return Arguments.parse(simple_parse_args_string(text) | {"batch_size": "1"})


def test_the_users_command_is_understood():
    arguments = parse(
        "pretrained=../model/llava-video,conv_template=qwen_1_5,model_name=llava_qwen,max_frames_num=64,device_map=auto,"
        "attn_implementation=flash_attention_2,torch_dtype=float16,video_decode_backend=pyav,mm_newline_position=no_token,"
        "add_time_instruction=True,force_sample=true,device=cuda:0"
    )
    assert arguments.max_frames_num == 64
    assert arguments.add_time_instruction is True
    assert arguments.force_sample is True
    assert arguments.mm_newline_position == "no_token"
    assert arguments.build_compressor() == build_compressor("st_gridpool")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('compressor_args={"preset":"paper","kernel_size":3}', {"preset": "paper", "kernel_size": 3}),
        (
            'compressor_args={"preset": null, "strides": [1, 2], "grid_size": [4, 2]}',
            {"preset": None, "strides": (1, 2), "grid_size": (4, 2)},
        ),
        ('compressor_args={"norm_order":"inf","scale":0.5},max_frames_num=3', {"norm_order": "inf", "scale": 0.5}),
        ("compressor_args=", {}),
    ],
)
def test_compressor_args_are_json_with_commas(text, expected):
    assert parse(f"pretrained=x,{text}").build_compressor() == build_compressor("st_gridpool", **expected)


@pytest.mark.parametrize("name", ["none", "bilinear", "average", "max", "nsp"])
def test_compressors_are_chosen_by_name(name):
    assert parse(f"pretrained=x,compressor={name}").build_compressor() == build_compressor(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pretrained=x,max_frames=8", "no argument 'max_frames', did you mean 'max_frames_num'"),
        ("max_frames_num=8", "needs pretrained="),
        ("pretrained=x,compressor=st_gridpol", "did you mean 'st_gridpool'"),
        ('pretrained=x,compressor_args={"presett":"paper"}', "did you mean 'preset'"),
        ("pretrained=x,compressor_args=[1]", "must be a JSON object"),
        ("pretrained=x,compressor_args={preset:paper}", "must be JSON"),
        ("pretrained=x,conv_template=qwen_15", "did you mean 'qwen_1_5'"),
        ("pretrained=x,video_decode_backend=av", "did you mean 'pyav'"),
        ("pretrained=x,mm_newline_position=rows", "cannot be 'rows'. There are: grid, frame, one_token, no_token"),
        ("pretrained=x,torch_dtype=half", "torch_dtype cannot be 'half'"),
        ("pretrained=x,max_frames_num=0", "at least 1, got 0"),
        ("pretrained=x,max_frames_num=8.5", "whole number of at least 1, got 8.5"),
        ("pretrained=x,decode_timeout_s=0", "decode_timeout_s must be a number of seconds above 0, got 0"),
        ("pretrained=x,decode_timeout_s=2m", "decode_timeout_s must be a number of seconds above 0, got '2m'"),
        ("pretrained=x,fps=0", "fps must be a number of frames per second above 0, got 0"),
        ("pretrained=x,fps=all", "fps must be a number of frames per second above 0, got 'all'"),
        ("pretrained=x,fps=1,force_sample=true", "give fps or force_sample, not both"),
        ("pretrained=x,vision_batch_size=0", "vision_batch_size must be 'auto' or a whole number of at least 1, got 0"),
        ("pretrained=x,vision_batch_size=all", "vision_batch_size must be 'auto' or a whole number"),
        ("pretrained=x,force_sample=maybe", "must be True or False, got 'maybe'"),
    ],
)
def test_wrong_arguments_are_named_with_a_way_out(text, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        parse(text)


def test_only_one_question_at_a_time():
    with pytest.raises(ValueError, match="batch_size must be 1, got '8'"):
        Arguments.parse({"pretrained": "x", "batch_size": "8"})


def test_no_argument_name_changes_the_name_of_the_results_folder():
    names = [field.name for field in fields(Arguments)]
    # lmms-eval names the folder after what follows the first "peft=", "delta=" or "pretrained=", in this order.
    assert not [name for name in names if name.endswith(("peft", "delta"))]
    assert [name for name in names if name.endswith("pretrained")] == ["pretrained"]


def test_a_deterministic_run_does_not_fit_its_batches_to_the_free_memory():
    assert parse("pretrained=x").fixed_vision_batch_size() is None
    assert parse("pretrained=x,deterministic=True").fixed_vision_batch_size() == DETERMINISTIC_VISION_BATCH
    assert parse("pretrained=x,deterministic=True,vision_batch_size=3").fixed_vision_batch_size() == 3
