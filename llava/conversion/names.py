"""Names of the same weights in LLaVA-NeXT's checkpoints and in native ones.

Native names are those of the checkpoints on the hub. transformers' own classes, and files that some versions of
it wrote, prepend other prefixes; these are read, too.

Source: https://huggingface.co/llava-hf/llava-onevision-qwen2-7b-ov-hf (the weights' index).
"""

_PREFIXES = {  # LLaVA-NeXT: native
    "model.vision_tower.vision_tower.": "vision_tower.",
    "model.mm_projector.0.": "multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "multi_modal_projector.linear_2.",
    "model.image_newline": "image_newline",
    "model.embed_tokens.": "language_model.model.embed_tokens.",
    "model.layers.": "language_model.model.layers.",
    "model.norm.": "language_model.model.norm.",
    "lm_head.": "language_model.lm_head.",
}
_UNUSED = (".inv_freq", ".position_ids")
_POOLING_HEAD = ("vision_tower.vision_model.head.", "vision_tower.head.")
_NEWER = {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head."}


def native_name(name: str) -> str | None:
    """Return the native name of a weight of LLaVA-NeXT; None if the native class has no such weight."""
    for ours, theirs in _PREFIXES.items():
        if name.startswith(ours):
            renamed = theirs + name.removeprefix(ours)
            return renamed if _is_used(renamed) else None
    return None


def original_name(name: str) -> str | None:
    """Return LLaVA-NeXT's name of a native weight; None if LLaVA-NeXT has no such weight."""
    plain = _hub_name(name)
    for ours, theirs in _PREFIXES.items():
        if plain.startswith(theirs):
            return ours + plain.removeprefix(theirs) if _is_used(plain) else None
    return None


def _hub_name(name: str) -> str:
    for newer, plain in _NEWER.items():
        if name.startswith(newer):
            return plain + name.removeprefix(newer)
    for part in ("vision_tower.", "multi_modal_projector.", "image_newline"):
        if name.startswith(f"model.{part}"):
            return name.removeprefix("model.")
    return name


def _is_used(name: str) -> bool:
    return not name.endswith(_UNUSED) and not name.startswith(_POOLING_HEAD)
