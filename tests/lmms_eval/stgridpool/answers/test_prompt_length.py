"""The length of a prompt is that of what the first layer of the language model reads."""

import pytest

from lmms_eval_stgridpool.answers.prompt_length import check_length, longest_layer
from stgridpool import STTM, Bilinear, FastV


class Model:
    longest = 300


class Inside:
    def __init__(self, *steps):
        self.steps = steps


class Video:
    """A video of 5 frames of 4 x 4 tokens, 20 newline tokens beside them."""

    shape, cell, num_tokens = (5, 4, 4), None, 80


class Prompt:
    videos = ((10, Video), (120, Video))

    def __len__(self):
        return 310


def model_with(method, **attributes):
    model = Model()
    model.inside = Inside(*method.for_depth(4).steps()) if method.steps()[0].is_inside else None
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


@pytest.mark.parametrize(
    ("method", "length"),
    [
        (Bilinear(2), 310),
        (STTM(layer=0, retention=0.25), 310 - 2 * 60),
        (STTM(layer=0, tokens=30), 310 - 2 * 50),
        (STTM(layer=2, retention=0.25), 310),  # layers 0 and 1 read everything
        (STTM(layer=0, retention=0.25, positions="survive"), 310),  # the last position stays where it was
        (STTM(layer=0, retention=0.25, mode="components"), 310 - 2 * 60),
        (STTM(layer=0), 310),  # thresholds may keep everything
        (FastV(layer=1, retention=0.25), 310),
    ],
    ids=repr,
)
def test_the_first_layer_counts(method, length):
    assert longest_layer(model_with(method), Prompt()) == length


def test_a_video_whose_tokens_fill_no_lattice_counts_what_it_has(monkeypatch):
    monkeypatch.setattr(Video, "cell", object())
    monkeypatch.setattr(Video, "num_tokens", 40)
    assert longest_layer(model_with(STTM(layer=0, retention=0.25)), Prompt()) == 310 - 2 * 30


def test_a_prompt_may_be_as_long_as_its_first_layer_allows():
    check_length(model_with(STTM(layer=0, retention=0.25), longest=190), Prompt())
    with pytest.raises(ValueError, match="a prompt of 190 tokens, 40 of them visual, is longer than"):
        check_length(model_with(STTM(layer=0, retention=0.25), longest=189), Prompt())
    with pytest.raises(ValueError, match=r"310 tokens, 160 of them .*_max_length = 309: .* raise max_length"):
        check_length(model_with(Bilinear(2), longest=309), Prompt())
    check_length(model_with(Bilinear(2), longest=None), Prompt())
