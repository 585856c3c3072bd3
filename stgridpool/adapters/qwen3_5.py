"""Qwen3.5, dense and with experts."""

from __future__ import annotations

from typing import Any, ClassVar

from stgridpool.adapters.adapter import VIDEO, Inputs
from stgridpool.adapters.mrope import Grid
from stgridpool.adapters.qwen2_vl import Qwen2VLAdapter


class Qwen3_5Adapter(Qwen2VLAdapter):  # noqa: N801 - the model's own name
    """Qwen3.5: each frame has a time stamp and a run of placeholders; positions restart after each time stamp.

    Most decoder layers are linear attention, whose state has seen every token: dropping a token is not the same as
    masking it, and no compressor can act inside the language model.
    """

    model_types: ClassVar[tuple[str, ...]] = ("qwen3_5", "qwen3_5_moe")
    is_one_run: ClassVar[bool] = False

    def grids(self, model: Any, inputs: Inputs, kind: str) -> list[Grid]:
        """Return a segment for each frame."""
        shapes = self.shapes(model, inputs, kind)
        return [Grid((1, *shape[1:])) for shape in shapes for _ in range(shape[0] if kind == VIDEO else 1)]
