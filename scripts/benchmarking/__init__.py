"""The parts of ``scripts/benchmark.py``: one module per command, and what they share.

A command's module has ``add_parser(commands)``, which adds its parser and sets its function as the default of ``run``.
"""
