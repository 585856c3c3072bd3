"""Compression inside a language model, and prompts that share what was prefilled."""
