"""The question of a prompt: its ids are read off the embeddings, each of which is nearest to itself in tiny models."""

import pytest
import torch

from native_models.families import DENSE, build
from native_models.limits import TWO_VIDEOS, WITH_IMAGE, skip_unless_possible
from native_models.prompts import make_clips, make_frames, make_inputs
from stgridpool.adapters import adapter_for, compress_inputs, visual_runs
from stgridpool.adapters.places import QUESTION
from stgridpool.adapters.question import question_evidence

FRAMES = make_frames(4, 32, 32)
pytestmark = pytest.mark.adapters
every_family = pytest.mark.parametrize("name", DENSE)


def questions(name, *prompts, images=False):
    model, processor = build(name)
    adapter, inputs = adapter_for(model), make_inputs(processor, *prompts)
    clips = (
        None
        if all(isinstance(part, str) or part.ndim == 4 for one in prompts for part in one)
        else make_clips(*prompts)
    )
    runs = visual_runs(adapter, model, inputs, (), images, clips)
    texts = []
    for row in range(len(prompts)):
        found = question_evidence(adapter, model, inputs, [run for run in runs if run.row == row])
        ids = torch.cdist(found[QUESTION], model.get_input_embeddings().weight).argmin(1)
        texts.append(processor.tokenizer.decode(ids))
    return texts


@pytest.fixture(autouse=True)
def end(request):
    """Turns end with a mark of the chat template."""
    model, processor = build(request.getfixturevalue("name"))
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [
        processor.tokenizer.get_vocab().get(mark, 0) for mark in ("<|im_end|>", "<end_of_utterance>")
    ]
    yield
    model.generation_config.eos_token_id = before


@every_family
def test_the_text_behind_the_video(name):
    text, other = questions(name, [FRAMES, "What happens?"], ["Look here:", FRAMES, "Why?"])
    assert (text.strip(), other.strip()) == ("What happens?", "Why?")


@every_family
def test_the_text_behind_the_last_video(name):
    skip_unless_possible(name, TWO_VIDEOS)
    (text,) = questions(name, ["A", FRAMES, "and", FRAMES, "Why?"])
    assert text.strip() == "Why?"


@every_family
def test_neither_images_nor_their_marks_belong_to_it(name):
    skip_unless_possible(name, WITH_IMAGE)
    (text,) = questions(name, ["A", FRAMES, "Is it", FRAMES[0], "or", FRAMES[1], "there?"])
    assert text.replace("\n", "") == "Is itorthere?"


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "video_llama_3"])
def test_without_a_video_it_is_the_text_behind_the_last_image(name):
    model, processor = build(name)
    prompt = ["See", FRAMES[0], "and", FRAMES[1], "What is it?"]
    (text,) = questions(name, prompt, images=True)
    assert text.strip() == "What is it?"
    prompt = compress_inputs(model, make_inputs(processor, prompt), "cdpruner", retention=0.5, images=True)
    assert [2 * len(image.tokens) for image in prompt.visuals[0]] == [
        len(image.run.slots) for image in prompt.visuals[0]
    ]


@pytest.mark.parametrize("name", ["qwen2_5_vl"])
def test_a_prompt_that_ends_with_its_video_is_refused(name):
    with pytest.raises(ValueError, match="needs text after the last video or image, got none"):
        questions(name, ["What happens?", FRAMES])
