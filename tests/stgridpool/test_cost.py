"""The cost of a prompt, worked out by hand."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from transformers import Glm4vMoeTextConfig, Qwen3_5MoeTextConfig, Qwen3VLMoeTextConfig

from stgridpool.cost import DecoderSize

SMALL = DecoderSize(layers=2, width=4, heads=2, kv_heads=1, head_size=2, inner_width=6, vocabulary=10)


def test_operations_of_a_prefill():
    # Weights of a layer: queries 16, keys 8, values 8, output 16, three times 24: 120, so that a position takes 240.
    # Causal attention of n positions: twice half of n * n * 4 products, each 2 operations: 8 * n * n / 2 * 2 = 8 n^2.
    assert SMALL.prefill_flops([3, 1]) == (240 * 3 + 8 * 9) + (240 * 1 + 8 * 1) + 2 * 4 * 10


def test_bytes_of_the_cache():
    assert SMALL.kv_bytes([3, 1]) == (3 + 1) * 2 * 1 * 2 * 2
    assert SMALL.kv_bytes([3, 1], bytes_per_number=4) == 64


def test_a_token_of_a_7b_model_takes_about_twice_its_weights():
    qwen2 = SimpleNamespace(num_hidden_layers=28, hidden_size=3584, num_attention_heads=28, num_key_value_heads=4)
    size = DecoderSize.of(SimpleNamespace(**vars(qwen2), intermediate_size=18944, vocab_size=152064))
    assert size.head_size == 128
    assert size.kv_bytes([1] * 28) == 57344  # 28 layers, keys and values, 4 heads of 128, 2 bytes
    assert 13.0e9 < size.prefill_flops([1] * 28) < 14.4e9  # 7.1e9 weights take part, 6.5e9 of them in layers


def test_layers_of_linear_attention_keep_no_keys_and_values():
    size = replace(SMALL, linear_layers=frozenset({0}))
    assert size.kv_bytes([3, 1]) == 1 * 2 * 1 * 2 * 2
    assert size.prefill_flops([3, 1]) == 240 * 3 + (240 * 1 + 8 * 1) + 2 * 4 * 10
    settings = {"num_hidden_layers": 4, "layer_types": ["linear_attention", "full_attention"] * 2}
    assert DecoderSize.of(Qwen3_5MoeTextConfig(**settings)).linear_layers == {0, 2}


@pytest.mark.parametrize(
    ("config", "width"),
    [
        (Qwen3_5MoeTextConfig(moe_intermediate_size=32, num_experts_per_tok=2, shared_expert_intermediate_size=8), 72),
        (Glm4vMoeTextConfig(num_hidden_layers=4, intermediate_size=100, moe_intermediate_size=10), (100 + 3 * 90) / 4),
        (
            Qwen3VLMoeTextConfig(
                **{"num_hidden_layers": 4, "intermediate_size": 100, "moe_intermediate_size": 10},
                **{"num_experts_per_tok": 2, "mlp_only_layers": [1], "decoder_sparse_step": 2},
            ),
            (3 * 100 + 20) / 4,
        ),
    ],
)
def test_a_position_goes_through_some_experts(config, width):
    """GLM-4V: eight experts and a shared one, from the second layer on; Qwen3-VL: here in the last layer alone."""
    assert DecoderSize.of(config).inner_width == width
