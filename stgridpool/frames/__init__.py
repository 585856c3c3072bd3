"""Patterns laid over every frame: windows, resizing, mosaics."""
