"""The tiny models of the tests: loaded from a folder they are the same, and their answers depend on the video."""

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from native_models.families import BUILDERS, build, save
from native_models.prompts import make_frames, make_inputs

QUESTION = "What happens?"


@pytest.mark.parametrize("name", BUILDERS)
def test_answers_depend_on_the_video(name):
    model, processor = build(name)
    assert model.config.model_type == name
    one, other = (make_inputs(processor, [make_frames(8, seed=seed), QUESTION]) for seed in (0, 1))
    with torch.no_grad():
        difference = model(**one).logits[:, -1] - model(**other).logits[:, -1]
    assert difference.abs().max() > 0.5


@pytest.mark.parametrize("name", BUILDERS)
def test_a_saved_checkpoint_is_the_same_model(name, tmp_path):
    model, processor = build(name)
    folder = save(name, tmp_path)
    inputs = make_inputs(processor, [make_frames(4), QUESTION])
    loaded_inputs = make_inputs(AutoProcessor.from_pretrained(folder), [make_frames(4), QUESTION])
    assert inputs.keys() == loaded_inputs.keys()
    for key, value in inputs.items():
        torch.testing.assert_close(torch.as_tensor(loaded_inputs[key]), torch.as_tensor(value), rtol=0, atol=0)
    loaded = AutoModelForImageTextToText.from_pretrained(folder).eval()
    assert type(loaded) is type(model)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits, rtol=0, atol=0)
