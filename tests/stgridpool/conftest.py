"""A language model small enough to be called layer by layer."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM


@pytest.fixture(scope="session")
def make_decoder():
    """Function that makes a Qwen2 of width 32 with random weights, whose answers depend on all of the prompt."""

    def make(num_layers, **settings):
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=97,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=num_layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            pad_token_id=0,
            **{"eos_token_id": None} | settings,
        )
        model = Qwen2ForCausalLM(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" not in name:
                    parameter.mul_(6)
        return model

    return make
