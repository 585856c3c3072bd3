"""Conversion of checkpoints between LLaVA-NeXT's format and transformers' LlavaOnevisionForConditionalGeneration.

The weights stay what they are, bit for bit: only names, configuration, tokenizer and preprocessing change.
"""
