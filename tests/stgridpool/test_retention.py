"""Every definition of retention, from counts worked out by hand."""

import pytest
import torch

from stgridpool import Step, build_compressor
from stgridpool.decoder.decoder import TransformersDecoder
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.decoder.steps import DecoderSteps
from stgridpool.retention import LayerLengths, RetentionSums, VisualCounts, fractions

# 100 tokens and 10 newlines; layer 0 has them all, layers 1 to 3 have 20 and 4; one of them reads less when generating.
INSIDE = VisualCounts(100, 10, (100, 20, 20, 20), (10, 4, 4, 4), (110, 24, 14, 24))
BEFORE = VisualCounts(1000, 0, (500,) * 4, (0,) * 4, (500,) * 4)
TEXT = VisualCounts(0, 0, (0,) * 4, (0,) * 4, (0,) * 4)


def retention(counts):
    return fractions(counts.kept(), counts.full, counts.full_newlines)


def test_each_definition():
    assert retention(INSIDE) == pytest.approx(
        {
            "entering_llm": 1.0,
            "layer_average": 0.4,
            "last_layer": 0.2,
            "kv_read": (100 + 20 + 10 + 20) / 400,
            "entering_llm_with_newlines": 1.0,
            "layer_average_with_newlines": (110 + 3 * 24) / 440,
            "last_layer_with_newlines": 24 / 110,
            "kv_read_with_newlines": (110 + 24 + 14 + 24) / 440,
        }
    )
    assert set(retention(BEFORE).values()) == {0.5}
    assert retention(TEXT) == {}


def test_the_mean_over_questions_and_the_total_differ():
    sums, others = RetentionSums(), RetentionSums()
    assert sums.mean() == sums.total() == {}
    sums.add(INSIDE.kept(), INSIDE.full, INSIDE.full_newlines)
    for counts in (BEFORE, TEXT):
        others.add(counts.kept(), counts.full, counts.full_newlines)
    sums.merge(others)
    assert sums.questions == 2
    assert sums.mean()["last_layer"] == pytest.approx((0.2 + 0.5) / 2)
    assert sums.total()["last_layer"] == pytest.approx((20 + 500) / 1100)
    assert sums.total()["last_layer_with_newlines"] == pytest.approx((24 + 500) / 1110)


def test_lengths_are_read_where_layers_are_entered(make_decoder):
    model = make_decoder(num_layers=3)
    decoder = TransformersDecoder(model)
    span = VisualSpan(torch.arange(2, 18), (1, 4, 4), torch.empty(0, dtype=torch.long))
    embeds = torch.randn(1, 20, 32)
    with (
        torch.inference_mode(),
        DecoderSteps(decoder, [Step(build_compressor("average"), 1)]).prompts([[span]]),
        LayerLengths(decoder.layers).of_first_forward() as lengths,
    ):
        model.generate(inputs_embeds=embeds, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert lengths == [20, 8, 8]
    assert not any(layer._forward_pre_hooks for layer in model.model.layers)
