"""The files of a released LLaVA-Video checkpoint: tokenizer, config.json, and names and shapes of the weights.

Source: https://huggingface.co/lmms-lab/LLaVA-Video-7B-Qwen2 (config.json and the weights' index).
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PATCH_SIZE = 14
MAX_LENGTH = 32768
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TOKENIZER_TEXT = (
    "You are a helpful assistant.",
    "system user assistant",
    "Select the best answer to the following multiple-choice question based on the video and the subtitles.",
    "Respond with only the letter (A, B, C, or D) of the correct option.",
    "Answer with the option's letter from the given choices directly. The best answer is:",
    "What colour is the large moving shape? Which way does the large shape move? How many small dots are there?",
)


@dataclass(frozen=True)
class Size:
    """Geometry of a checkpoint; everything not named here is as in LLaVA-Video-7B-Qwen2."""

    image_size: int  # pixels; image_size // 14 patches per side
    vision_width: int
    vision_layers: int  # as in the config; the model drops the last one, and the file does not hold it
    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int


def train_tokenizer(text: Iterable[str], vocab_size: int = 384) -> Tokenizer:
    """Return a byte-level BPE tokenizer of Qwen2's kind: at most `vocab_size` ids and its three special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(QWEN2_WORDS), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the six tokenizer files of a Qwen2 checkpoint into `folder`."""
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    shown = {token: asdict(_Special(token)) for token in SPECIAL_TOKENS}
    write_json(folder / "added_tokens.json", ids)
    named = {"eos_token": shown["<|im_end|>"], "pad_token": shown["<|endoftext|>"]}
    more = [shown["<|im_start|>"], shown["<|im_end|>"]]
    write_json(folder / "special_tokens_map.json", {"additional_special_tokens": more, **named})
    config = {
        "added_tokens_decoder": {str(ids[token]): {**shown[token], "special": True} for token in SPECIAL_TOKENS},
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": MAX_LENGTH,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    write_json(folder / "tokenizer_config.json", config)


@dataclass(frozen=True)
class _Special:
    """A special token as the tokenizer's JSON files spell it."""

    content: str
    lstrip: bool = False
    normalized: bool = False
    rstrip: bool = False
    single_word: bool = False


def model_config(size: Size, tokenizer: Tokenizer) -> dict:
    """Return config.json: the keys of the released checkpoint, and `vision_config`, which tells the tower's size.

    A released checkpoint has no `vision_config`: its tower's size follows from the name in `mm_vision_tower`.
    """
    pinpoints = [[size.image_size * i, size.image_size * j] for i in range(1, 7) for j in range(1, 7)]
    text = {
        "architectures": ["LlavaQwenForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "hidden_act": "silu",
        "hidden_size": size.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": 2 * size.hidden_size,
        "max_position_embeddings": MAX_LENGTH,
        "max_window_layers": size.layers,
        "model_type": "llava",
        "num_attention_heads": size.heads,
        "num_hidden_layers": size.layers,
        "num_key_value_heads": size.key_value_heads,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "sliding_window": 131072,
        "tie_word_embeddings": False,
        "tokenizer_model_max_length": MAX_LENGTH,
        "tokenizer_padding_side": "right",
        "torch_dtype": "float32",
        "transformers_version": "4.40.0.dev0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": _padded_vocabulary(tokenizer),
    }
    multimodal = {
        "add_faster_video": False,
        "add_time_instruction": True,
        "faster_token_stride": 10,
        "force_sample": True,
        "image_aspect_ratio": "anyres_max_9",
        "image_crop_resolution": None,
        "image_grid_pinpoints": pinpoints,
        "image_split_resolution": None,
        "mm_hidden_size": size.vision_width,
        "mm_newline_position": "grid",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_lr": None,
        "mm_projector_type": "mlp2x_gelu",
        "mm_resampler_type": None,
        "mm_spatial_pool_mode": "bilinear",
        "mm_spatial_pool_stride": 2,
        "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": f"random/siglip-patch{PATCH_SIZE}-{size.image_size}",
        "mm_vision_tower_lr": 2e-06,
        "pos_skipping_range": 4096,
        "use_mm_proj": True,
        "use_pos_skipping": False,
        "vision_config": {
            "attention_dropout": 0.0,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": size.vision_width,
            "image_size": size.image_size,
            "intermediate_size": 2 * size.vision_width,
            "layer_norm_eps": 1e-06,
            "model_type": "siglip_vision_model",
            "num_attention_heads": 2,
            "num_channels": 3,
            "num_hidden_layers": size.vision_layers,
            "patch_size": PATCH_SIZE,
        },
        "vision_tower_pretrained": None,
    }
    return dict(sorted((text | multimodal).items()))


def weight_shapes(size: Size, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor in the checkpoint, by the released checkpoint's names."""
    hidden, width = size.hidden_size, size.vision_width
    key_value = hidden // size.heads * size.key_value_heads
    shapes: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (vocab_size, hidden),
        "model.embed_tokens.weight": (vocab_size, hidden),
        "model.image_newline": (hidden,),
        "model.norm.weight": (hidden,),
        **_linear("model.mm_projector.0", width, hidden),
        **_linear("model.mm_projector.2", hidden, hidden),
    }
    for i in range(size.layers):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.{norm}.weight": (hidden,) for norm in ("input_layernorm", "post_attention_layernorm")}
        shapes |= _linear(f"{layer}.self_attn.q_proj", hidden, hidden)
        shapes |= _linear(f"{layer}.self_attn.k_proj", hidden, key_value)
        shapes |= _linear(f"{layer}.self_attn.v_proj", hidden, key_value)
        shapes |= {
            f"{layer}.self_attn.o_proj.weight": (hidden, hidden),
            f"{layer}.mlp.gate_proj.weight": (2 * hidden, hidden),
            f"{layer}.mlp.up_proj.weight": (2 * hidden, hidden),
            f"{layer}.mlp.down_proj.weight": (hidden, 2 * hidden),
        }
    return dict(sorted((shapes | _tower_shapes(size)).items()))


def _tower_shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Return the vision tower's part of `weight_shapes`: one layer fewer than the config says, no pooling head."""
    tower, width = "model.vision_tower.vision_tower.vision_model", size.vision_width
    shapes: dict[str, tuple[int, ...]] = {
        f"{tower}.embeddings.patch_embedding.weight": (width, 3, PATCH_SIZE, PATCH_SIZE),
        f"{tower}.embeddings.patch_embedding.bias": (width,),
        f"{tower}.embeddings.position_embedding.weight": ((size.image_size // PATCH_SIZE) ** 2, width),
        **_layer_norm(f"{tower}.post_layernorm", width),
    }
    for i in range(size.vision_layers - 1):
        layer = f"{tower}.encoder.layers.{i}"
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= _layer_norm(f"{layer}.{norm}", width)
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{layer}.self_attn.{projection}", width, width)
        shapes |= _linear(f"{layer}.mlp.fc1", width, 2 * width) | _linear(f"{layer}.mlp.fc2", 2 * width, width)
    return shapes


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _layer_norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _padded_vocabulary(tokenizer: Tokenizer) -> int:
    """Return the vocabulary's size rounded up to 64 and one block more: like Qwen2, more rows than ids."""
    return (tokenizer.get_vocab_size() // 64 + 2) * 64


def write_json(path: Path, content: dict) -> None:
    """Write a file as the released ones are written: indented by two, with a line break at its end."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
