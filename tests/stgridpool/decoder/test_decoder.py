"""Queries and keys of a decoder's layers: attention equals the weights that the eager implementation returns."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.phi3 import Phi3Config, Phi3ForCausalLM

from stgridpool.decoder.attention_rows import attention_to
from stgridpool.decoder.decoder import TransformersDecoder
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.evidence import QueryAttention

pytestmark = pytest.mark.contract

SMALL = {
    "vocab_size": 31,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
SPANS = [
    VisualSpan(torch.arange(3, 12), (1, 3, 3), torch.tensor([12])),
    VisualSpan(torch.arange(15, 19), (1, 2, 2), torch.empty(0, dtype=torch.long)),
]
LENGTH = 25


def make_model(family, make_decoder, implementation):
    if family == "qwen2":
        return make_decoder(num_layers=3, attn_implementation=implementation)
    torch.manual_seed(1)
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**SMALL, head_dim=16, attn_implementation=implementation)).eval()
    model = Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=16, attn_implementation=implementation)).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_norm.weight.normal_()
            layer.self_attn.k_norm.weight.normal_()
    return model


def sharpened(model):
    """Weights of queries and keys large enough that attention differs from token to token."""
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(5)
            layer.self_attn.k_proj.weight.mul_(5)
    return model


@pytest.mark.parametrize("family", ["qwen2", "llama", "qwen3"])
@pytest.mark.parametrize("rows", ["last", "question"])
@pytest.mark.parametrize("reduce", ["mean", "max"])
@torch.inference_mode()
def test_attention_equals_eager_weights(make_decoder, family, rows, reduce):
    eager = make_model(family, make_decoder, "eager")
    if family != "qwen2":
        sharpened(eager)
    prompt = torch.randn(1, LENGTH, 32, generator=torch.Generator().manual_seed(3))
    output = eager.model(inputs_embeds=prompt, output_attentions=True, output_hidden_states=True)
    decoder = TransformersDecoder(eager)
    tables = tuple(table[0] for table in decoder.rotary(prompt, torch.arange(LENGTH)[None]))
    for layer in range(3):
        hidden = output.hidden_states[layer][0]
        found = attention_to(decoder, QueryAttention(layer, rows, reduce), hidden, tables, SPANS, LENGTH)
        weights = output.attentions[layer][0][:, -1:] if rows == "last" else output.attentions[layer][0][:, 19:]
        flat = weights.flatten(0, 1)
        expected = flat.mean(dim=0) if reduce == "mean" else flat.amax(dim=0)
        assert expected[3:12].std() > 1e-4  # or the test would show nothing
        for span, values in zip(SPANS, found, strict=True):
            torch.testing.assert_close(values, expected[span.tokens], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_an_answer_behind_the_question_is_not_looked_at(make_decoder):
    model = make_decoder(num_layers=1)
    decoder, prompt = TransformersDecoder(model), torch.randn(LENGTH, 32)
    tables = tuple(table[0] for table in decoder.rotary(prompt[None], torch.arange(LENGTH)[None]))
    for rows in ("last", "question"):
        need = QueryAttention(0, rows)
        whole = attention_to(decoder, need, prompt, tables, SPANS, LENGTH - 4)
        short = tuple(table[:-4] for table in tables)
        for one, other in zip(whole, attention_to(decoder, need, prompt[:-4], short, SPANS, LENGTH - 4), strict=True):
            torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match=r"QueryAttention\(layer=0, rows='question', .* needs text after the last"):
        attention_to(decoder, QueryAttention(0, "question"), prompt, tables, SPANS, 19)


def test_other_decoders_are_refused_by_what_they_lack():
    with pytest.raises(ValueError, match="Wrapped is not a decoder like Qwen2 or Llama: it has no layers, rotary_emb"):
        TransformersDecoder(_wrapped(SimpleNamespace(config=None)))
    layer = nn.Identity()
    with pytest.raises(ValueError, match=r"no layers\[0\].forward\(attention_mask\), .*forward\(position_embeddings\)"):
        TransformersDecoder(_wrapped(SimpleNamespace(config=None, layers=[layer], rotary_emb=None)))


def _wrapped(body):
    return type("Wrapped", (), {"base_model": body})()


def test_other_attention_is_refused_by_its_parts(make_decoder):
    fused = TransformersDecoder(Phi3ForCausalLM(Phi3Config(**SMALL)))
    with pytest.raises(ValueError, match=r"layer 1 cannot be computed: it has no self_attn\.k_proj, self_attn\.q_proj"):
        fused.check_attention(1)
    model = make_decoder(num_layers=2)
    model.model.layers[1].self_attn.sinks = nn.Parameter(torch.zeros(4))
    TransformersDecoder(model).check_attention(0)
    with pytest.raises(ValueError, match="layer 1 cannot be computed: it also has sinks"):
        TransformersDecoder(model).check_attention(1)


def test_positions_of_three_axes_are_noticed(make_decoder):
    model = make_decoder(num_layers=1)
    assert TransformersDecoder(model).num_position_axes == 1
    model.config.rope_parameters["mrope_section"] = [1, 1, 2]
    assert TransformersDecoder(model).num_position_axes == 3
