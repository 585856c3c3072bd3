import inspect

import pytest
import torch
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

from stgridpool.decoder.kv_cache import CACHE_ARGUMENT, find_cache

pytestmark = pytest.mark.contract


def test_a_cache_is_found_by_type_under_any_name_and_in_any_place():
    cache = DynamicCache()
    for name in ("cache", "past_key_values", "a_name_of_next_year"):
        assert find_cache((torch.zeros(1),), {"attention_mask": None, name: cache}) is cache
    assert find_cache((torch.zeros(1), None, cache), {}) is cache


def test_no_cache_is_none():
    assert find_cache((torch.zeros(1),), {"cache": None, "use_cache": True}) is None


def test_the_name_is_one_that_the_whole_decoder_takes():
    for forward in (Qwen2ForCausalLM.forward, Qwen2DecoderLayer.forward):
        assert CACHE_ARGUMENT in inspect.signature(forward).parameters


def test_a_decoder_fills_the_cache_passed_under_that_name(recwarn):
    model = Qwen2ForCausalLM(
        Qwen2Config(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                    num_key_value_heads=1)
    )  # fmt: skip
    cache = DynamicCache(config=model.config)
    model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=True, **{CACHE_ARGUMENT: cache})
    assert cache.get_seq_length() == 3
    assert not [warning for warning in recwarn if "deprecated" in str(warning.message)]
