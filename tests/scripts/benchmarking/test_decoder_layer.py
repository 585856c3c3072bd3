"""The decoder layer that compressors are compared with: of the sizes asked for, and causal."""

import torch


def test_a_causal_layer_of_the_right_size(benchmarking, small):
    call = benchmarking("decoder_layer").decoder_layer_call(small, 20, torch.float32, torch.device("cpu"))
    layer, (hidden,) = call.func, call.args
    weights = sum(parameter.numel() for parameter in layer.parameters())
    square, key_value = small.width**2, small.key_value_width
    biases, norms = small.width + 2 * key_value, 2 * small.width
    assert weights == 2 * square + 2 * small.width * key_value + 3 * small.width * small.inner + biases + norms
    changed = hidden.clone()
    changed[:, 12:] += 1
    with torch.inference_mode():
        before, after = layer(hidden, **call.keywords), layer(changed, **call.keywords)
    assert before.shape == (1, 20, small.width)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])
