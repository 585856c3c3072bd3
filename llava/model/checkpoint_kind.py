"""What kind of checkpoint a folder holds, by its settings alone; nothing heavy is imported."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

ARCHITECTURE = "LlavaQwenForCausalLM"


def is_original(settings: Mapping[str, Any]) -> bool:
    """Tell whether settings are those of a checkpoint in LLaVA-NeXT's format, on Qwen2.

    The architecture decides; the `model_type` of released ones may be `llava` or `qwen2`.
    """
    architectures = settings.get("architectures")
    has_qwen2 = architectures == [ARCHITECTURE] if architectures else "num_key_value_heads" in settings
    return has_qwen2 and bool(settings.get("mm_vision_tower"))


def check_original(settings: Mapping[str, Any], folder: Path, source: str) -> None:
    """Check that settings are those of a checkpoint in LLaVA-NeXT's format, on Qwen2.

    Args:
        settings: The settings.
        folder: The checkpoint, for messages.
        source: Source of the settings, for messages.

    Raises:
        ValueError: If it is of another kind.
    """
    if is_original(settings):
        return
    hint = "; scripts/convert_checkpoint.py makes one of it" if settings.get("model_type") == "llava_onevision" else ""
    raise ValueError(
        f"{folder} is not a LLaVA checkpoint on Qwen2: {source} must have architectures [{ARCHITECTURE!r}] and "
        f"mm_vision_tower, got {settings.get('architectures')} and {settings.get('mm_vision_tower')!r}{hint}"
    )
