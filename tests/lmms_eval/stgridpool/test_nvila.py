"""NVILA checkpoints in the lmms-eval model `llava_video`."""

import shutil

import pytest
from lmms_eval.api.instance import unwrap_generation_output

from fitting_options import FITTING
from llava.constants import IMAGE_TOKEN_INDEX
from llava.mm_utils import tokenizer_image_token
from llava.video import read_video
from lmms_eval_stgridpool.kept.identity import checkpoint_version
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments
from lmms_eval_stgridpool.sweep import SweptModel
from stgridpool import COMPRESSORS, build_compressor
from stgridpool.checkpoint_files import read_json

PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n"
    "<|im_start|>user\n<image>What is shown?<|im_end|>\n<|im_start|>assistant\n"
)
FRAMES = {"v0.mp4": (40, [0, 6, 11, 17, 22, 28, 33, 39]), "v1.mp4": (56, [0, 8, 16, 24, 31, 39, 47, 55])}


@pytest.fixture(scope="module")
def nvila(golden, tmp_path_factory):
    """A folder with a copy of the tiny NVILA-8B-Video checkpoint, whose pooling makes one frame of four."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-nvila"
    shutil.copytree(golden / "nvila" / "ckpt-video", folder, copy_function=shutil.copyfile)
    return folder


@pytest.fixture(scope="module")
def own(make_model, nvila):
    return make_model(pretrained=str(nvila), max_frames_num=None)


def facts(results):
    return [unwrap_generation_output(result)[1].to_dict() for result in results]


def texts(results):
    return [unwrap_generation_output(result)[0] for result in results]


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("nvila/ckpt-video", {}, ("nearest", 8, None, "video")),
        ("nvila/ckpt-base", {"video_encoding": "frames"}, ("nearest", 4, None, "frames")),
        ("nvila/ckpt-lite", {"sampling": "index", "conv_template": "qwen_2"}, ("index", 4, "qwen_2", "video")),
        ("nvila/ckpt-lite", {"fps": 2.0, "max_frames_num": 16}, ("index", 16, None, "video")),
        ("nvila/ckpt-lite", {"force_sample": True}, ("index", 4, None, "video")),
        ("llava/ckpt-video", {}, ("index", 64, "qwen_1_5", None)),
        ("llava/ckpt-video", {"sampling": "nearest"}, ("nearest", 64, "qwen_1_5", None)),
    ],
)
def test_the_checkpoint_decides_what_no_argument_does(golden, name, given, expected):
    settings = read_json(golden / name / "config.json")
    arguments = LlavaArguments(pretrained=str(golden / name), **given).for_checkpoint(settings)
    names = ("sampling", "max_frames_num", "conv_template", "video_encoding")
    assert tuple(getattr(arguments, name) for name in names) == expected


def test_arguments_that_do_not_suit(golden):
    settings = read_json(golden / "llava" / "ckpt-video" / "config.json")
    with pytest.raises(ValueError, match="video_encoding=frames is for NVILA checkpoints, and x is not one"):
        LlavaArguments(pretrained="x", video_encoding="frames").for_checkpoint(settings)
    with pytest.raises(ValueError, match="video_encoding cannot be 'pictures'"):
        LlavaArguments(pretrained="x", video_encoding="pictures")
    with pytest.raises(ValueError, match="sampling=nearest always takes max_frames_num frames"):
        LlavaArguments(pretrained="x", sampling="nearest", fps=1.0)


@pytest.mark.parametrize("encoding", ["video", "frames"])
def test_answers_are_those_of_the_model_to_its_own_frames_and_prompt(make_model, ask, clips, nvila, encoding):
    method = {"compressor": "none", "compressor_args": {"own_pooling": True}}
    model = make_model(pretrained=str(nvila), max_frames_num=None, video_encoding=encoding, **method)
    documents = [{"visuals": [name], "gen_kwargs": {"max_new_tokens": 5}} for name in FRAMES]
    results = ask(model, "generate_until", documents)
    language_model, tokenizer = model.model.language_model, model.model.tokenizer
    language_model.compressor = None
    for name, text, fact in zip(FRAMES, texts(results), facts(results), strict=True):
        num_frames, indices = FRAMES[name]
        clip = read_video(clips / name, indices=indices)
        assert clip.num_frames == num_frames
        pixels = model.model.recipe.preprocess(clip.frames, return_tensors="pt")["pixel_values"]
        ids = tokenizer_image_token(PROMPT, tokenizer, return_tensors="pt")[None]
        assert (ids == IMAGE_TOKEN_INDEX).sum() == 1
        expected = language_model.generate(ids, images=[pixels], modalities=["video"], max_new_tokens=5)
        assert text == tokenizer.decode(expected[0], skip_special_tokens=True).strip()
        # 3 x 3 tokens of each of 8 frames, or of 2 after the pooling over time, and a newline after each.
        assert (fact["visual_tokens"], fact["newline_tokens"]) == {"video": (18, 2), "frames": (72, 8)}[encoding]
        assert fact["full_tokens"] == fact["visual_tokens"]


def test_questions_share_the_video_and_resume(make_model, ask, nvila, tmp_path):
    arguments = {"pretrained": str(nvila), "max_frames_num": None, "compressor": "nsp", "resume_dir": str(tmp_path)}
    documents = [{"visuals": ["v0.mp4"], "context": f"Question {index}?"} for index in range(3)]
    model = make_model(**arguments)
    assert model._setup["shares_prefix"]
    first = texts(ask(model, "generate_until", documents))
    assert model._sums.videos == 1
    model._journal.finish()
    again = make_model(**arguments)
    assert texts(ask(again, "generate_until", documents)) == first
    assert again._sums.resumed_requests == 3
    apart = make_model(**{**arguments, "resume_dir": None, "share_prefix": False})
    assert texts(ask(apart, "generate_until", documents)) == first


def test_the_record_says_which_way_a_video_went(own):
    setup = own._setup
    assert (setup["video_encoding"], setup["own_pooling"]) == ("video", "BlockAverage(sizes=((4, 1, 1),))")
    assert (setup["sampling"], setup["max_frames_num"]) == ("nearest", 8)


@pytest.fixture(scope="module")
def swept(nvila, tmp_path_factory):
    """Models of every compressor by name, with one set of weights."""
    listed = tmp_path_factory.mktemp("listed") / "oracle_frames.json"
    listed.write_text('{"v2.mp4": [0, 2]}')
    # Frames that users list are those of the video, which the checkpoint's own pooling would join.
    in_front = {"oracle_frames": ("none+oracle_frames", {"oracle_frames": {"file": str(listed)}})}
    named = {name: in_front.get(name, (name, FITTING.get(name, {}))) for name in COMPRESSORS}
    model = SweptModel(pretrained=str(nvila), device="cpu", decode_threads=1)
    built = [build_compressor(name, **options) for name, options in named.values()]
    return dict(zip(COMPRESSORS, model.for_each(built), strict=True))


@pytest.mark.parametrize("name", COMPRESSORS)
def test_every_compressor_keeps_what_it_planned(swept, ask, name):
    """The grid of a frame is 3 x 3; the number of tokens is what the plan says, or an error would be raised."""
    document = {"visuals": ["v2.mp4"], "gen_kwargs": {"max_new_tokens": 1}}
    [fact] = facts(ask(swept[name], "generate_until", [document]))
    assert (fact["failure"], fact["frames"]) == (None, 8)
    assert fact["full_tokens"] == 18
    assert fact["visual_tokens"] > 0
    if name == "none":
        assert (fact["visual_tokens"], fact["newline_tokens"]) == (72, 8)


def test_the_uncompressed_run_of_a_sweep_keeps_the_pooling_of_the_checkpoint(swept, ask):
    model = swept["none"]
    name, options = model.own_choice()
    assert (name, options) == ("none", {"own_pooling": True})
    [own] = model.for_each([build_compressor(name, **options)])
    [fact] = facts(ask(own, "generate_until", [{"visuals": ["v2.mp4"]}]))
    assert (fact["visual_tokens"], fact["newline_tokens"]) == (18, 2)


def test_the_version_of_a_checkpoint_covers_its_parts(nvila, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(nvila, folder)
    before = checkpoint_version(str(folder), None)
    (folder / "llm" / "model.safetensors").touch()
    assert checkpoint_version(str(folder), None) != before


@pytest.mark.slow
def test_two_processes_answer_as_one_does(evaluate, nvila):
    options = {"pretrained": nvila, "max_frames_num": 8, "compressor": "st_gridpool"}
    alone, two = evaluate("clips", 1, **options), evaluate("clips", 2, **options)
    assert (alone.statuses, two.statuses) == ([0], [0, 0]), alone.messages + two.messages
    assert alone.scores == two.scores
    answers = [{key: one["filtered_resps"] for key, one in run.samples.items()} for run in (alone, two)]
    assert len(answers[0]) == 7
    assert answers[0] == answers[1]
