"""What the tiny models share: tokenizer, chat template, decoder settings and weights on which the answers depend."""

from __future__ import annotations

import math

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

WIDTH = 64  # of every decoder
DECODER = {
    "hidden_size": WIDTH,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,  # answers have the length that was asked for
}
FOUR_LAYERS = DECODER | {"num_hidden_layers": 4}
"""The decoder of families in which methods act at layer 2 or 3 and share an average over the layers."""
_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] -%}
{% if part['type'] == 'video' %}VIDEO{% elif part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}
{%- endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def make_tokenizer(*special: str, **named: str) -> PreTrainedTokenizerFast:
    """Make a byte-level tokenizer without merges: one token per byte, after the special ones.

    Args:
        *special: Further special tokens.
        **named: Further special tokens that processors ask for by an attribute, such as `image_token`.
    """
    tokens = ["<|endoftext|>", "<s>", "<|im_start|>", "<|im_end|>", *special, *named.values()]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[symbol] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(dict.fromkeys(tokens)))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        bos_token="<s>",
        eos_token="<|im_end|>",
        padding_side="left",
        extra_special_tokens=named,
    )


def chat_template(image: str, video: str) -> str:
    """Return a ChatML template that writes these strings in the places of images and videos."""
    return _TEMPLATE.replace("IMAGE", image).replace("VIDEO", video)


def randomize(model: PreTrainedModel) -> PreTrainedModel:
    """Give the model seeded weights, large enough that the answers depend on all of the prompt."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                weight.copy_(1 + 0.1 * noise)
            elif weight.ndim < 2 or "embed" in name:
                weight.copy_(0.1 * noise)
            else:
                inputs = weight.shape[-1] if weight.ndim == 3 else weight[0].numel()  # three: a matrix per expert
                weight.copy_(noise * 1.5 / math.sqrt(inputs))
    return model.eval()
