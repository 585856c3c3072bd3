"""The cost of a prompt, worked out by hand."""

from types import SimpleNamespace

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
