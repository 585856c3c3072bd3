"""compress_inputs: the processor's output with shorter videos."""

from __future__ import annotations

from typing import Any

from stgridpool.adapters.adapter import Clips, Inputs
from stgridpool.adapters.families import adapter_for
from stgridpool.adapters.prompt import CompressedPrompt, write_prompt
from stgridpool.adapters.visual_runs import compress_run, visual_runs
from stgridpool.compressor import Compressor


def compress_inputs(
    model: Any,
    inputs: Inputs,
    compressor: Compressor | None,
    positions: str = "reference",
    images: bool = False,
    clips: Clips | None = None,
) -> CompressedPrompt:
    """Compress the videos of prompts, and write the prompts anew around them; the model is not changed.

    Args:
        model: A native model of transformers of a supported family.
        inputs: The unmodified output of its processor.
        compressor: The method; None, like the method "none", leaves the tokens of the model's own pooling.
        positions: Where the remaining tokens stand. "reference", the default, is what the family was trained with: in
            models with M-RoPE every token keeps its time, row and column, and text its place behind the video; in
            others all tokens are numbered without gaps. "survive" and "reassign" choose one of these, and "hf" takes
            the axes of M-RoPE as the installed transformers computes them.
        images: Whether to compress images, too.
        clips: See `stgridpool.adapters.adapter.Clips`.

    Raises:
        ValueError: If the model is not supported, a visual does not match its placeholders, or the method refuses its
            tokens.
    """
    adapter = adapter_for(model)
    steps = () if compressor is None else compressor.steps()
    runs = visual_runs(adapter, model, inputs, images=images, clips=clips)
    visuals = [compress_run(adapter, model, run, steps) for run in runs]
    return write_prompt(adapter, model, inputs, visuals, positions)
