"""A lean model for original LLaVA-NeXT checkpoints (LLaVA-Video, LLaVA-OneVision) on transformers 5.

Import paths and names are those that scripts written for LLaVA-NeXT and lmms-eval's own model classes use.
"""
