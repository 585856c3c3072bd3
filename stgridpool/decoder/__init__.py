"""Compression inside a language model, and prompts that share a prefilled prefix."""
