"""Tests that every method must pass: ours, their presets, compositions of them, and methods of other packages.

Run ``pytest --pyargs stgridpool.contract`` for all of ours, or add ``--method my.module:MyMethod`` for another one.
"""
