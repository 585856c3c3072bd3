"""``stgridpool show`` on the miniature and on tiny native models."""

import json
import re

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from lmms_eval_stgridpool.cli.app import app
from native_models.families import save

MINIATURE = "scripts/nano/checkpoint"


@pytest.fixture(scope="module")
def video(tmp_path_factory, write_video):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", num_frames=48, rate=6)


@pytest.fixture(scope="module")
def miniature(request):
    return request.config.rootpath / MINIATURE


def invoke(*words):
    return CliRunner().invoke(app, ["show", *map(str, words)])


def methods_of(page):
    """The methods of a page, each with the number of its tokens at every point."""
    data = json.loads(re.search('id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1])
    return {one["name"]: [stage["count"] for stage in one["stages"]] for one in data["methods"]}, data["shape"]


def test_methods_stand_side_by_side_at_one_budget(video, miniature, tmp_path):
    """Eight frames of the checkpoint's own 16 tokens, of which half are left at the end."""
    page, picture = tmp_path / "folder" / "page.html", tmp_path / "picture.png"
    words = ("-c", "visionzip", "-c", "fastv", "-c", 'sttm:{"layer":3}', "--retention", 0.5, "-o", page, "-o", picture)
    result = invoke(video, "--checkpoint", miniature, "--frames", 8, *words)
    assert result.stdout.splitlines() == [str(page), str(picture)]
    assert methods_of(page) == ({"visionzip": [64], "fastv": [128, 64], "sttm": [128, 64]}, [8, 7, 7])
    assert Image.open(picture).size[0] == 1600


def test_the_same_method_twice_is_named_by_its_options(video, miniature, tmp_path):
    page = tmp_path / "page.html"
    words = ("-c", "average", "-c", 'average:{"kernel_size":3}', "-o", page)
    assert invoke(video, "--checkpoint", miniature, "--frames", 2, *words).exit_code == 0
    assert methods_of(page)[0] == {"average": [18], "average_kernel_size=3": [8]}


def test_nvila_is_shown_at_its_own_budget(video, golden, tmp_path):
    """Eight frames of 3x3 tokens, which the checkpoint joins in fours: 18, of which half are left."""
    page = tmp_path / "page.html"
    words = ("--checkpoint", golden / "nvila" / "ckpt-video", "--frames", 8, "-c", "random", "--retention", 0.5)
    assert invoke(video, *words, "-o", page).exception is None
    assert methods_of(page) == ({"random": [9]}, [8, 3, 3])


def test_native_models_are_shown_at_their_own_sizes(video, tmp_path):
    """Four frames in pairs, each of 2x3 tokens: 48x64 pixels in patches of 14 or 16, joined two by two."""
    checkpoint, page = save("qwen2_5_vl", tmp_path / "native"), tmp_path / "page.html"
    words = ("--frames", 4, "--model_args", "torch_dtype=float32", "--retention", 0.5)
    result = invoke(video, "--checkpoint", checkpoint, "-c", "evs", "-c", "fastv", "-o", page, *words)
    assert result.exception is None
    counts, (frames, rows, columns) = methods_of(page)
    assert frames == 2
    tokens = frames * rows * columns
    assert counts == {"evs": [tokens // 2], "fastv": [tokens, tokens // 2]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("none.mp4", "-o", "page.html"), "there is no video none.mp4"),
        ((__file__, "-o", "page.pdf"), "--output must end with .html or .png, got page.pdf"),
        ((__file__, "-o", "page.html", "-c", "nps"), "nps: there is no compressor 'nps', did you mean 'nsp'?"),
        ((__file__, "-o", "page.html"), "cannot read video"),
    ],
)
def test_what_cannot_be_shown_is_one_line(words, message, miniature):
    error = invoke(*words, "--checkpoint", miniature).exception
    assert isinstance(error, ValueError)
    assert str(error).startswith(message)


def test_tokens_that_are_infinite_are_one_line_and_no_page(video, tmp_path):
    """All weights are finite, as is checked when they are loaded: the last product overflows."""
    checkpoint, page = save("qwen2_5_vl", tmp_path / "native"), tmp_path / "page.html"
    weights = load_file(checkpoint / "model.safetensors")
    [name] = [name for name in weights if name.endswith("merger.mlp.2.weight")]
    save_file({**weights, name: weights[name].sign() * 3e38}, checkpoint / "model.safetensors", {"format": "pt"})
    words = ("--checkpoint", checkpoint, "--frames", 4, "--model_args", "torch_dtype=float32")
    error = invoke(video, *words, "-o", page).exception
    assert isinstance(error, ValueError)
    assert str(error) == "NaN or infinity in the vision part with torch_dtype=float32: the weights are damaged"
    assert not page.exists()
