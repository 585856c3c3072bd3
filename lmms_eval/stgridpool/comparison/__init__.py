"""Comparison of runs, and sweeps, whose runs share the work that comes before compression."""
