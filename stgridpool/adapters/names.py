"""Names that options of native models take; nothing heavy is imported, so that options can be checked quickly."""

MODEL_TYPES = (
    *("llava_onevision", "llava_next_video", "video_llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"),
    *("qwen3_5", "qwen3_5_moe", "glm4v", "glm4v_moe", "internvl", "smolvlm", "video_llama_3", "molmo2"),
)
"""Values of `model_type` that the families in `stgridpool.adapters.families` serve."""

POLICIES = ("reference", "hf", "survive", "reassign")
"""Positions of a compressed prompt, see `stgridpool.adapters.compress_inputs`."""

BOTH_WAYS = ("molmo2",)
"""Those in whose language model visual tokens attend to one another in both directions."""

LINEAR = ("qwen3_5", "qwen3_5_moe")
"""Those most of whose decoder layers are linear attention unless their settings list other layers."""
