"""Where a method may act in a native model, known before a model is loaded."""

from __future__ import annotations

from stgridpool.compressor import Compressor, early_steps


def check_places(compressor: Compressor) -> None:
    """Check that a method acts on features or inside the language model, as methods for native models must.

    Raises:
        ValueError: If it acts before the features.
    """
    if early_steps(compressor):
        raise ValueError(
            f"{compressor!r} acts on frames or in the vision tower, which only checkpoints in LLaVA-NeXT's format "
            "allow: choose another method for native models"
        )
