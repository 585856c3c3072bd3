"""The model's size, and its files: the layout of a released LLaVA-Video checkpoint."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer

from llava.conversation import conv_templates
from llava.model.builder import LlavaQwenConfig, LlavaQwenForCausalLM
from lmms_eval_stgridpool.kept.paths import own_folder

from .checkpoint_format import (
    PATCH_SIZE,
    TOKENIZER_TEXT,
    Size,
    model_config,
    train_tokenizer,
    write_json,
    write_tokenizer,
)
from .questions import QUESTION_TYPES, ask

VOCABULARY = 640
TILE, PATCHES = 98, 7  # pixels and patches along a side of the vision tower's input


def prompt(question: str, answer: str | None = None) -> str:
    """Build the conversation for one question about a video, with or without an answer."""
    conversation = conv_templates["qwen_1_5"].copy()
    conversation.append_message(conversation.roles[0], f"<image>\n{question}")
    conversation.append_message(conversation.roles[1], answer)
    return conversation.get_prompt()


def write_description(folder: Path) -> None:
    """Write tokenizer, config.json and generation_config.json to `folder`, a new folder or one written here before.

    The tokenizer is trained on the questions. Of config.json only sizes and names differ from the released one.
    """
    own_folder("the checkpoint", folder)
    texts = [
        prompt(ask(kind.text, list(kind.words[start : start + 4])), answer="A")
        for kind in QUESTION_TYPES
        for start in range(0, len(kind.words), 2)
        if start + 4 <= len(kind.words)
    ]
    tokenizer = train_tokenizer([*texts, "Is it right? yes no", *TOKENIZER_TEXT], VOCABULARY)
    size = Size(
        TILE, vision_width=96, vision_layers=4, hidden_size=128, layers=5, heads=4, key_value_heads=2
    )  # the last vision layer is dropped by every LLaVA model: three are kept
    config = model_config(size, tokenizer)
    config |= {"intermediate_size": 384, "rope_theta": 10000.0, "torch_dtype": "bfloat16"}
    config |= {"mm_vision_tower": f"nano/siglip-patch{PATCH_SIZE}-{TILE}"}
    config["vision_config"] |= {"intermediate_size": 288, "num_attention_heads": 3}
    stop_ids = [tokenizer.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>")]
    generation = {"eos_token_id": stop_ids, "pad_token_id": stop_ids[1], "transformers_version": "4.40.0.dev0"}
    write_tokenizer(tokenizer, folder)
    for name, content in (("config.json", config), ("generation_config.json", generation)):
        write_json(folder / name, content)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer in `folder`."""
    return Qwen2Tokenizer.from_pretrained(folder)


def new_model(folder: Path, seed: int) -> LlavaQwenForCausalLM:
    """Build the model that `folder` describes, with random weights: deviation 1 / sqrt(inputs), less in deep layers."""
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings |= {"model_type": LlavaQwenConfig.model_type}
    settings.pop("rope_scaling")  # null, as in released files; the loader drops it as well
    model = LlavaQwenForCausalLM(LlavaQwenConfig.from_dict(settings, attn_implementation="eager")).float()
    generator = torch.Generator().manual_seed(seed)
    depth = settings["num_hidden_layers"]
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            parameter.data.fill_(0.0 if name.endswith(".bias") else 1.0)  # 1: the weights of norms
            continue
        is_table = name.endswith(("embed_tokens.weight", "position_embedding.weight"))
        deviation = 0.5 if is_table else parameter[0].numel() ** -0.5
        if name.endswith(("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight")):
            deviation /= (2 * depth) ** 0.5
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
    model.model.image_newline.data.copy_(torch.randn(model.config.hidden_size, generator=generator) * 0.5)
    return model


def save_weights(model: LlavaQwenForCausalLM, folder: Path) -> None:
    """Write the weights as bfloat16 under the released checkpoints' names."""
    weights = {}
    for name, value in model.state_dict().items():
        nested = name.replace("vision_tower.vision_tower.", "vision_tower.vision_tower.vision_model.")
        weights[nested] = value.detach().to("cpu", torch.bfloat16).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
