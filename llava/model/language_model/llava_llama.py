"""Configuration of LLaVA checkpoints on Llama: scripts import and register it; the model itself is not supported."""

from transformers import AutoConfig, LlamaConfig


class LlavaConfig(LlamaConfig):
    """Configuration of a LLaVA checkpoint whose language model is Llama or Vicuna."""

    model_type = "llava_llama"


AutoConfig.register(LlavaConfig.model_type, LlavaConfig, exist_ok=True)
