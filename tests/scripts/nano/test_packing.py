"""Packed questions are answered as if each were asked alone."""

import pytest
import torch

from llava.mm_utils import tokenizer_image_token


@pytest.fixture(scope="module")
def untrained(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("untrained")
    checkpoint = nano("checkpoint")
    checkpoint.write_description(folder)
    return checkpoint.new_model(folder, seed=1).eval(), checkpoint.read_tokenizer(folder)


def test_packed_logits_equal_those_of_single_prompts(nano, untrained):
    model, tokenizer = untrained
    packing, questions, attention = nano("packing"), nano("questions"), nano("attention")
    prompts = [
        nano("checkpoint").prompt(questions.ask(kind.text, list(kind.words[-4:]))) for kind in questions.QUESTION_TYPES
    ]
    ids = [tokenizer_image_token(text, tokenizer, return_tensors="pt") for text in prompts]
    video = torch.randn(37, 128, generator=torch.Generator().manual_seed(0))
    before, shared, tails = packing.split_prompts(ids)
    embed = model.get_input_embeddings()
    with torch.no_grad():
        singles = []
        for tail in tails:
            alone = torch.cat([embed(before), video, embed(shared), embed(tail)])
            singles.append(model(inputs_embeds=alone[None]).logits[0, -1])
        attention.register()
        model.config._attn_implementation = attention.NAME
        frame = packing.Frame(before, shared, tuple(len(tail) for tail in tails))
        hidden, _ = packing.run_packed(model, frame, torch.cat(tails)[None], video[None])
        packed = model.lm_head(hidden[0, torch.tensor(frame.lengths).cumsum(0) - 1])
    model.config._attn_implementation = "eager"
    torch.testing.assert_close(packed, torch.stack(singles), atol=1e-4, rtol=1e-4)


def test_targets_are_word_verdicts_letter_and_stop(nano, untrained):
    _, tokenizer = untrained
    packing = nano("packing")
    generator = torch.Generator().manual_seed(0)
    clips = nano("world").plan_clips(3, 8, generator)
    form = packing.make_form(tokenizer)
    packed = packing.pack(form, clips, tokenizer, generator)
    said = [tokenizer.decode(token) for token in packed.targets[1, :7].tolist()]
    colour = list(nano("world").COLOURS)[clips.mover[1, 0]]
    letter = said[5]
    verdicts = [" yes" if name == letter else " no" for name in "ABCD"]
    assert said == [f" {colour}", *verdicts, letter, "<|im_end|>"]
    text = tokenizer.decode(packed.ids[1, : len(form.questions[0].ids)].tolist())
    assert f"{letter}. {colour}\n" in text
    assert text.endswith(f"assistant\n{letter}")


def test_a_word_of_several_tokens_is_refused(nano, untrained):
    with pytest.raises(ValueError, match="must be one token"):
        nano("packing")._single_id(untrained[1], " antidisestablishment")
