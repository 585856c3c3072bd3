"""compress_inputs: the processor's output with shorter videos."""

from __future__ import annotations

from typing import Any

import torch

from stgridpool.adapters.adapter import VIDEO, Adapter, Clips, Inputs
from stgridpool.adapters.families import adapter_for
from stgridpool.adapters.method import Method
from stgridpool.adapters.places import QUESTION
from stgridpool.adapters.prompt import CompressedPrompt, write_prompt
from stgridpool.adapters.question import question_evidence
from stgridpool.adapters.visual_runs import compress_run, visual_runs
from stgridpool.compressor import Compressor
from stgridpool.evidence import Evidence
from stgridpool.retention import DEFINITIONS


def compress_inputs(
    model: Any,
    inputs: Inputs,
    compressor: Compressor | str | None,
    positions: str = "reference",
    retention: float | None = None,
    of: str = DEFINITIONS[0],
    images: bool = False,
    clips: Clips | None = None,
    reuse_frames: bool = True,
) -> CompressedPrompt:
    """Compress the videos of prompts, and rewrite the prompts around them; the model is not changed.

    Args:
        model: A native model of transformers of a supported family.
        inputs: The unmodified output of its processor.
        compressor: The method, its name, or None, which leaves the tokens of the model's own pooling, as "none" does.
        positions: Where the remaining tokens stand. "reference", the default, is what the family was trained with: in
            models with M-RoPE every token keeps its time, row and column, and text its place after the video; in
            others all tokens are numbered without gaps. "survive" and "reassign" choose one of these, and "hf" takes
            the axes of M-RoPE as the installed transformers computes them.
        retention: Fraction of the unmodified model's tokens to keep, above 0 and at most 1; None for the method's own
            budget.
        of: The definition of retention, one of `stgridpool.retention.DEFINITIONS`.
        images: Whether to compress images as well.
        clips: See `stgridpool.adapters.adapter.Clips`.
        reuse_frames: Whether the vision tower encodes frames of videos that are equal once, see
            `stgridpool.adapters.repeated_frames`; features differ by the rounding of another batch size at most.

    Raises:
        ValueError: If the model is not supported, a visual does not match its placeholders, or the method refuses its
            tokens.
    """
    adapter = adapter_for(model)
    method = Method.of_model(adapter, model, compressor, retention, of)
    return compress_with(method, adapter, model, inputs, positions, images, clips, reuse_frames)


@torch.no_grad()
def compress_with(
    method: Method,
    adapter: Adapter,
    model: Any,
    inputs: Inputs,
    positions: str = "reference",
    images: bool = False,
    clips: Clips | None = None,
    reuse_frames: bool = True,
) -> CompressedPrompt:
    """Compress the videos of prompts by a method that was built for the model; see `compress_inputs`."""
    runs = visual_runs(adapter, model, inputs, method.needs, images, clips, reuse_frames)
    to_compress = [run for run in runs if images or run.kind == VIDEO]
    visuals = []
    for run in runs:
        is_compressed = run in to_compress
        front = [step for step in method.steps(adapter, model, run) if not step.is_inside] if is_compressed else []
        evidence: Evidence = {}
        if is_compressed and QUESTION in method.needs:
            evidence = question_evidence(adapter, model, inputs, [one for one in runs if one.row == run.row])
        visuals.append(compress_run(adapter, model, run, front, evidence).without_sources())
    inside = method.inside(adapter, model, to_compress) if to_compress else None
    return write_prompt(adapter, model, inputs, visuals, positions, inside, images)
