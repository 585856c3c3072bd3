"""Write a small LLaVA-Video checkpoint with seeded random weights, in the layout of the released ones.

File names, config keys, tokenizer kind and parameter names are those of LLaVA-Video-7B-Qwen2, so everything that loads
the real checkpoint loads this one. It is untrained. One thing is arranged: after the prompt's last line break it says a
letter from A to D and then stops, as a real model does; the random weights decide which letter.

Source: https://huggingface.co/lmms-lab/LLaVA-Video-7B-Qwen2 (config.json and the weights' index).
"""

import argparse
import math
from pathlib import Path

import torch
from nano.miniature.checkpoint_format import (
    TOKENIZER_TEXT,
    Size,
    model_config,
    train_tokenizer,
    weight_shapes,
    write_json,
    write_tokenizer,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from lmms_eval_stgridpool.kept.paths import own_folder, path_argument

OPTION_LETTERS = ("A", "B", "C", "D")

SIZES = {
    "tiny": Size(98, vision_width=16, vision_layers=2, hidden_size=32, layers=1, heads=2, key_value_heads=1),
    "small": Size(378, vision_width=32, vision_layers=3, hidden_size=64, layers=2, heads=4, key_value_heads=2),
}


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Return float32 weights: norms one, biases zero, embeddings of deviation one, the rest of 1 / sqrt(inputs)."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        if name.endswith(".bias"):
            weights[name] = torch.zeros(shape)
        elif "norm" in name:
            weights[name] = torch.ones(shape)
        else:
            inputs = 1 if "embed_tokens" in name or "newline" in name else math.prod(shape[1:])
            weights[name] = torch.randn(shape, generator=generator) / math.sqrt(inputs)
    return weights


def answer_with_a_letter(weights: dict[str, Tensor], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """Return weights that say an option's letter after a line break, and stop after the letter.

    The first hidden component is made to mean "a line break was read" and the second "a letter was read": large in the
    embeddings of those tokens, and read out by the output rows of the letters and of the stop token.
    """
    line_break = tokenizer.encode("\n").ids
    letters = [tokenizer.token_to_id(letter) for letter in OPTION_LETTERS]
    stop = tokenizer.token_to_id("<|im_end|>")
    embeddings, head = weights["model.embed_tokens.weight"].clone(), weights["lm_head.weight"].clone()
    large = 4 * math.sqrt(embeddings.shape[1])  # four times the length of a random embedding
    head[:, :2] = 0
    embeddings[line_break, 0] = large
    embeddings[letters, 1] = large
    head[letters, 0] = 1
    head[stop, 1] = 1
    return weights | {"model.embed_tokens.weight": embeddings, "lm_head.weight": head}


def write_checkpoint(folder: Path, size: Size, seed: int) -> None:
    """Write config, generation config, tokenizer and weights to `folder`, a new folder or one written here before."""
    own_folder("the checkpoint", folder)
    tokenizer = train_tokenizer(TOKENIZER_TEXT)
    config = model_config(size, tokenizer)
    stop_ids = [tokenizer.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>")]
    generation = {"eos_token_id": stop_ids, "pad_token_id": stop_ids[1], "transformers_version": "4.40.0.dev0"}
    weights = random_weights(weight_shapes(size, config["vocab_size"]), seed)
    write_tokenizer(tokenizer, folder)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", generation)
    save_file(answer_with_a_letter(weights, tokenizer), folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """Parse the command line and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=path_argument, help="where to write it, for example demo/checkpoint")
    parser.add_argument("--size", choices=SIZES, default="small", help="small (default): 27x27 patches; tiny: 7x7")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights (default 0)")
    arguments = parser.parse_args()
    write_checkpoint(arguments.folder, SIZES[arguments.size], arguments.seed)
    print(f"{arguments.folder}: random weights (seed {arguments.seed}), nothing learnt; for trying things out only.")


if __name__ == "__main__":
    main()
