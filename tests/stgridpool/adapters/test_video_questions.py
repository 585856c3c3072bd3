"""Many questions about one video get the answers that the model gives to each prompt alone."""

import pytest
from transformers.video_utils import VideoMetadata

import stgridpool
from native_models.families import build
from native_models.prompts import FPS, STRIDE, make_frames, make_inputs
from stgridpool.adapters import VideoQuestions

GREEDY = {"max_new_tokens": 3, "do_sample": False}
QUESTIONS = ["What happens?", "Why is it so dark in there?"]
FRAMES = make_frames(8)
pytestmark = pytest.mark.adapters


def metadata(frames):
    indices = [number * STRIDE for number in range(len(frames))]
    return VideoMetadata(total_num_frames=len(frames) * STRIDE, fps=FPS, frames_indices=indices)


@pytest.mark.parametrize("compressor", ["vidcom2", "visionzip"])
@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])
def test_answers_are_those_of_single_prompts(name, compressor):
    model, processor = build(name)
    asked = VideoQuestions(model, processor, FRAMES, metadata(FRAMES), compressor)
    answers = asked.generate(QUESTIONS, **GREEDY)
    session = asked.session
    assert asked.generate(QUESTIONS[1:], **GREEDY) == answers[1:]
    assert asked.session is session
    for question, answer in zip(QUESTIONS, answers, strict=True):
        inputs = make_inputs(processor, [FRAMES, question])
        with stgridpool.compress(model, compressor):
            ids = model.generate(**inputs, **GREEDY)[0, inputs["input_ids"].shape[1] :]
        assert answer == processor.tokenizer.decode(ids, skip_special_tokens=True)


def test_what_cannot_be_shared_is_refused(monkeypatch):
    model, processor = build("qwen2_5_vl")
    with pytest.raises(ValueError, match=r"looks at the question: use stgridpool\.compress"):
        VideoQuestions(model, processor, FRAMES, metadata(FRAMES), "cdpruner")
    with pytest.raises(ValueError, match="an index for each of 8 frames"):
        VideoQuestions(model, processor, FRAMES, metadata(FRAMES[:4]))
    asked = VideoQuestions(model, processor, FRAMES, metadata(FRAMES))
    video = "<|vision_start|><|video_pad|><|vision_end|>"
    template = "{% for part in messages[0].content | reverse %}{{ part.text or '" + video + "' }}{% endfor %}!"
    monkeypatch.setattr(processor, "chat_template", template)
    with pytest.raises(ValueError, match="puts a question before its video"):
        asked.generate(QUESTIONS, **GREEDY)
