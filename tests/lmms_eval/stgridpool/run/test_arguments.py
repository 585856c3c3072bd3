from dataclasses import fields

import pytest

from lmms_eval_stgridpool.llava_video import LlavaVideo
from lmms_eval_stgridpool.run.llava_arguments import DETERMINISTIC_VISION_BATCH, LlavaArguments
from lmms_eval_stgridpool.run.model_args import parse_model_args
from stgridpool import build_compressor


def parse(text):
    return LlavaArguments.parse(parse_model_args(text) | {"batch_size": "1"})


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
        ("pretrained=", "pretrained must be a path, got an empty text; is it a shell variable that is not set?"),
        ("pretrained= ", "pretrained must be a path, got an empty text"),
        ("pretrained=x,resume_dir=", "resume_dir must be a path, got an empty text"),
        ("pretrained=x,feature_cache=", "feature_cache must be a path, got an empty text"),
        ("pretrained=x,resume_any_version=yes", "resume_any_version must be True or False .*, got 'yes'"),
        ("pretrained=x,compressor=st_gridpol", "did you mean 'st_gridpool'"),
        ('pretrained=x,compressor_args={"presett":"paper"}', "did you mean 'preset'"),
        ("pretrained=x,compressor_args=[1]", "must be a JSON object"),
        ("pretrained=x,compressor_args={preset:paper}", "must be JSON"),
        ("pretrained=x,conv_template=qwen_15", "did you mean 'qwen_1_5'"),
        ("pretrained=x,video_decode_backend=av", "did you mean 'pyav'"),
        ("pretrained=x,mm_newline_position=rows", "cannot be 'rows'. Available: grid, frame, one_token, no_token"),
        ("pretrained=x,torch_dtype=half", "torch_dtype cannot be 'half'"),
        ("pretrained=x,max_frames_num=0", "max_frames_num must be a whole number from 1 to 100000, got 0"),
        ("pretrained=x,max_frames_num=8.5", "whole number from 1 to 100000, got 8.5"),
        ("pretrained=x,decode_timeout_s=0", "decode_timeout_s must be a number of seconds from 0.001 to 86400, got 0"),
        ("pretrained=x,decode_timeout_s=2m", "decode_timeout_s must be a number of seconds .*, got '2m'"),
        ("pretrained=x,fps=0", "fps must be a number of frames per second from 0.001 to 1000, got 0"),
        ("pretrained=x,fps=all", "fps must be a number of frames per second .*, got 'all'"),
        ("pretrained=x,fps=1,force_sample=true", "set fps or force_sample, not both"),
        (
            "pretrained=x,vision_batch_size=0",
            r"vision_batch_size \(or auto\) must be a whole number from 1 .* got 0",
        ),
        ("pretrained=x,vision_batch_size=all", r"vision_batch_size \(or auto\) must be a whole number .*, got 'all'"),
        ("pretrained=x,force_sample=maybe", "must be True or False .*, got 'maybe'"),
    ],
)
def test_wrong_arguments_are_named_with_a_way_out(text, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('compressor_args={"ceil_mode":"false"}', "ceil_mode must be True or False"),
        ('compressor_args={"ceil_mode":0}', "ceil_mode must be True or False"),
        ('compressor_args={"kernel_size":true}', "kernel_size must be a whole number .*, got True"),
        (
            'compressor_args={"kernel_size":1e9}',
            "kernel_size must be a whole number .* got 1000000000.0",
        ),
        ('compressor_args={"kernel_size":1000000000}', "kernel_size must be a whole number from 1 to 256"),
        ('compressor_args={"kernel_size":2,"kernel_size":3}', "'kernel_size' is given twice"),
        ('compressor=st_gridpool+sttm,compressor_args={"sttm":{"tokens":2,"tokens":3}}', "'tokens' is given twice"),
        ('compressor_args={"scale":NaN}', "scale must be a number .*, got nan"),
        ('compressor=sttm,compressor_args={"retention":Infinity}', "retention must be a number .*, got inf"),
        ("max_frames_num=1000000000", "max_frames_num must be a whole number from 1 to 100000"),
        ("max_frames_num=1e9", "max_frames_num must be a whole number .*, got 1000000000.0"),
        ("rope_scaling=0.5", "rope_scaling must be a number from 1 to 1000, got 0.5"),
        ("rope_scaling=true", "rope_scaling must be a number .*, got True"),
        ("max_length=0", "max_length must be a whole number from 1 to 10000000, got 0"),
        ("max_length=65536.0", "max_length must be a whole number .*, got 65536.0"),
        ("max_frames_num=true", "max_frames_num must be a whole number .*, got True"),
        ("prefetch=100000", "prefetch must be a whole number from 0 to 256"),
        ("prefetch=false", "prefetch must be a whole number .*, got False"),
        ("decode_threads=100000", "decode_threads must be a whole number from 1 to 256"),
        ("questions_per_batch=100000", "questions_per_batch must be a whole number from 1 to 1024"),
        ("fps=1e-300", "fps must be a number of frames per second from 0.001 to 1000, got 1e-300"),
        ("fps=nan", "fps must be a number .*, got nan"),
        ("fps=true", "fps must be a number .*, got True"),
        ("decode_timeout_s=1e300", "decode_timeout_s must be a number of seconds from 0.001 to 86400, got 1e"),
        ("barrier_timeout_s=0.5", "barrier_timeout_s must be a number of seconds from 1 to 604800, got 0.5"),
        ("decode_memory_gb=0", "decode_memory_gb must be a number of gigabytes from 0.1 to 1000, got 0"),
        ("decode_timeout_s=inf", "decode_timeout_s must be a number .*, got inf"),
        ("feature_cache_gb=1e300", "feature_cache_gb must be a number of gigabytes from 1e-06 to 1e"),
        ("vision_batch_size=true", "vision_batch_size .* must be a whole number .*, got True"),
        ("share_prefix=1", "share_prefix must be True or False .*, got 1"),
        ("deterministic=yes", "deterministic must be True or False .*, got 'yes'"),
        ("device=gpu", "device must be cpu, cuda or cuda:0, cuda:1, ..., got 'gpu'"),
        ("device=0", "device must be cpu, .* got 0"),
        ("device=cuda:x", "device must be cpu, .* got 'cuda:x'"),
        ("device_map=atuo", "device_map must be auto, balanced, balanced_low_0, sequential, cpu, .* got 'atuo'"),
        ("device=cpu,device_map=cuda:0", "device=cpu contradicts device_map=cuda:0: leave one of them out"),
        ("attn_implementation=flash", "attn_implementation cannot be 'flash'"),
        ("attn_implementation=sdp", "attn_implementation cannot be 'sdp', did you mean 'sdpa'"),
        ("model_name=7", "model_name must be text, got 7"),
        ("compressor=", "compressor must not be empty"),
        ("compressor_args=5", "compressor_args must be a JSON object .*, got 5"),
    ],
)
def test_nothing_is_read_as_something_else(text, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        parse(f"pretrained=x,{text}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pretrained=x,fps=1,fps=2", "fps is given twice in --model_args: leave one out"),
        ('compressor_args={"preset":"paper"},pretrained=x,compressor_args={}', "compressor_args is given twice"),
        ("pretrained=x,max_frames_num", "NAME=VALUE,NAME=VALUE, got 'max_frames_num' without a value"),
        ('pretrained=x,compressor_args={"kernel_size":[2,3]', "is not closed in"),
        ("pretrained=it's here,fps=1", "a quote, brace or bracket is not closed in"),
    ],
)
def test_model_args_are_not_misread(text, message):
    with pytest.raises(ValueError, match=message):
        LlavaVideo.create_from_arg_string(text)


def test_model_args_with_commas_in_values_name_nothing_twice():
    assert parse_model_args('a={"b":1,"c":[2,{"b":3}]}, d=\'x,a=1\',e=') == {
        "a": '{"b":1,"c":[2,{"b":3}]}',
        "d": "'x,a=1'",
        "e": "",
    }


@pytest.mark.contract
@pytest.mark.parametrize(
    "text",
    [
        "a=True,b=false,c=TRUE,d=none",
        "a=1,b=1.5,c=1e3,d=-2,e=007,f=inf,g=nan_,h=1_000,i=0x10,j=+3",
        'a={"b":[1,2],"c":"x,y"},d=\'x,y\',e="a,b"',
        "a=x=y,b= padded ,c=",
        " a=1 , ,b=2,",
        "",
    ],
)
def test_values_are_those_of_lmms_eval(text):
    from lmms_eval.utils import simple_parse_args_string

    found, expected = parse_model_args(text), simple_parse_args_string(text)
    assert found == expected
    assert list(map(type, found.values())) == list(map(type, expected.values()))


def test_what_lmms_eval_says_does_not_contradict_model_args():
    with pytest.raises(ValueError, match="device is 'cpu' in --model_args and 'cuda:0' in --device: leave one out"):
        LlavaVideo.create_from_arg_string("pretrained=x,device=cpu", {"batch_size": "1", "device": "cuda:0"})
    with pytest.raises(ValueError, match="llava_video has no argument 'fp'"):
        LlavaVideo.create_from_arg_string("pretrained=x,fp=1", {"batch_size": "1", "max_batch_size": None})


def test_a_path_that_lmms_eval_read_as_a_number_is_refused():
    with pytest.raises(TypeError, match=r"resume_dir must be a path, got 7; a folder of that name is written ./7"):
        parse("pretrained=x,resume_dir=7")


def test_only_one_question_at_a_time():
    with pytest.raises(ValueError, match="batch_size must be 1, got '8'"):
        LlavaArguments.parse({"pretrained": "x", "batch_size": "8"})


def test_no_argument_name_changes_the_name_of_the_results_folder():
    names = [field.name for field in fields(LlavaArguments)]
    # lmms-eval names the folder after what follows the first "peft=", "delta=" or "pretrained=", in this order.
    assert not [name for name in names if name.endswith(("peft", "delta"))]
    assert [name for name in names if name.endswith("pretrained")] == ["pretrained"]


def test_a_deterministic_run_does_not_fit_its_batches_to_the_free_memory():
    assert parse("pretrained=x").fixed_vision_batch_size() is None
    assert parse("pretrained=x,deterministic=True").fixed_vision_batch_size() == DETERMINISTIC_VISION_BATCH
    assert parse("pretrained=x,deterministic=True,vision_batch_size=3").fixed_vision_batch_size() == 3
