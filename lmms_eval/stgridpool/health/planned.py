"""What a method leaves of a video whose sizes are known, counted without running a model."""

from collections.abc import Callable
from dataclasses import dataclass

from lmms_eval_stgridpool.health.largest import NEAR, largest
from stgridpool import Compressor, Shape
from stgridpool.compressor import PATCHES, Step, planned_counts, steps_that_renumber
from stgridpool.cost import DecoderSize
from stgridpool.equal_budget import Reference, planned_layers, planned_retention
from stgridpool.newline_counts import count_newlines
from stgridpool.retention import WITH_NEWLINES

TEXT_TOKENS = 64
"""Tokens of template and question that are added to the video's for cost and context."""
MOST_FRAMES = 100_000


@dataclass(frozen=True)
class Outline:
    """A video before compression, by its sizes alone.

    Attributes:
        frames: Number of frames.
        reference: What retention is measured against.
        lattice_frames: T of the lattice; models that join frames into tokens have fewer than `frames`.
        newline_position: Where newline tokens stand.
        total: Number of tokens where the model itself drops some of them; None if they fill the lattice.
        text_tokens: Tokens of text around and between the frames, `TEXT_TOKENS` included.
    """

    frames: int
    reference: Reference
    lattice_frames: int
    newline_position: str
    total: int | None = None
    text_tokens: int = TEXT_TOKENS

    @property
    def own_count(self) -> int:
        """Number of visual tokens without compression."""
        return self.reference.own_count(self.lattice_frames) if self.total is None else self.total


@dataclass(frozen=True)
class Planned:
    """What a method leaves of a number of frames; None where the tokens decide.

    Attributes:
        compressor: The method with its options.
        frames: Number of frames.
        own_tokens: Visual tokens after the checkpoint's own pooling, without newlines.
        tokens: Visual tokens that enter the language model.
        newlines: Newline tokens beside them; at most that many if `newlines_are_exact` is False.
        newlines_are_exact: Whether their number is known: they fall away where a row or frame has no token left.
        text_tokens: Tokens of text that are counted with them: `TEXT_TOKENS` of template and question, and the time
            stamps and marks that native models read between frames.
        kept: Tokens by each definition of retention.
        retention: The same as fractions of `own_tokens`, or of these and their newlines.
        tflops: Estimated floating-point operations of the prefill, 10^12, with the text.
        kv_megabytes: Size of the cache of keys and values in 16 bits, 10^6 bytes, with the text.
        positions: Tokens of the longest prompt in the longest layer, text included; None where the tokens decide.
        longest: Longest prompt that the checkpoint is made for; None if not known.
        fits: Whether `positions` are no more than `longest`; None if not known.
    """

    compressor: str
    frames: int
    own_tokens: int
    tokens: int | None
    newlines: int
    newlines_are_exact: bool
    text_tokens: int
    kept: dict[str, int | None]
    retention: dict[str, float | None]
    tflops: float | None
    kv_megabytes: float | None
    positions: int | None
    longest: int | None
    fits: bool | None


def plan_video(compressor: Compressor, video: Outline, size: DecoderSize, longest: int | None) -> Planned:
    """Count what a method leaves of a video.

    Args:
        compressor: The method, its options for the depth of the model settled.
        video: The video.
        size: Size of the language model.
        longest: Longest prompt, in tokens; None if there is no limit.

    Raises:
        ValueError: If there are too few tokens for its options.
    """
    reference = video.reference
    layers = planned_layers(compressor, video.lattice_frames, reference, video.total)
    shape, is_filled = _lattice(compressor, video)
    is_exact = video.newline_position in ("one_token", "no_token") or (is_filled and len(set(layers)) == 1)
    newlines = count_newlines(shape, video.newline_position)
    if not is_exact:
        newlines *= max(step.compressor.num_pathways for step in _front_steps(compressor, reference))
    kept, retention = _by_definition(compressor, video, newlines if is_exact else None)
    known = [count + newlines + video.text_tokens for count in layers if count is not None]
    lengths = known if len(known) == len(layers) else None
    positions = _positions(compressor, video, layers[0], newlines)
    return Planned(
        compressor=repr(compressor),
        frames=video.frames,
        own_tokens=video.own_count,
        tokens=layers[0],
        newlines=newlines,
        newlines_are_exact=is_exact,
        text_tokens=video.text_tokens,
        kept=kept,
        retention=retention,
        tflops=None if lengths is None else size.prefill_flops(lengths) / 1e12,
        kv_megabytes=None if lengths is None else size.kv_bytes(lengths) / 1e6,
        positions=positions,
        longest=longest,
        fits=None if positions is None or longest is None else positions <= longest,
    )


def fit(plan: Callable[[int], Planned | None], compressor: Compressor, most_tokens: int) -> int:
    """Return the largest number of frames of which at most `most_tokens` enter the language model, with newlines.

    Args:
        plan: Plans a number of frames; None if the method cannot meet its budget with it.
        compressor: The method, for messages.
        most_tokens: Number of tokens.

    Raises:
        ValueError: If the fewest frames that the method takes have more, or the number of tokens depends on the tokens.
    """

    def count(frames: int) -> int | None:
        planned = plan(frames)
        if planned is None:
            return None
        if planned.tokens is None:
            raise ValueError(
                f"the number of tokens that {compressor!r} keeps depends on the video: give it a budget, such as "
                "retention, tokens or tokens_per_frame"
            )
        return planned.tokens + planned.newlines

    def holds(frames: int) -> bool | None:
        found = count(frames)
        return None if found is None else found <= most_tokens

    most = largest(holds, MOST_FRAMES)
    if most is not None:
        return most
    counts = ((frames, count(frames)) for frames in range(1, NEAR + 1))
    fewest = next(((frames, found) for frames, found in counts if found is not None), None)
    if fewest is None:
        raise ValueError(f"{compressor!r} takes no number of frames up to {NEAR}: change its budget")
    frames, tokens = fewest
    which = "one frame has" if frames == 1 else f"{frames} frames, the fewest that {compressor!r} takes, have"
    raise ValueError(f"{which} {tokens} tokens, more than {most_tokens}")


def _by_definition(
    compressor: Compressor, video: Outline, newlines: int | None
) -> tuple[dict[str, int | None], dict[str, float | None]]:
    """Return tokens and retention by every definition, without newlines and with them, if their number is known."""
    own, retention = video.own_count, planned_retention(compressor, video.lattice_frames, video.reference, video.total)
    whole = own + count_newlines(video.reference.own_shape(video.lattice_frames), video.newline_position)
    kept = {name: None if share is None else round(share * own) for name, share in retention.items()}
    for name in tuple(kept):
        share = retention[name]  # of a mean, which need not be whole
        with_newlines = None if share is None or newlines is None else share * own + newlines
        kept[name + WITH_NEWLINES] = None if with_newlines is None else round(with_newlines)
        retention[name + WITH_NEWLINES] = None if with_newlines is None else with_newlines / whole
    return kept, retention


def _positions(compressor: Compressor, video: Outline, first: int | None, newlines: int) -> int | None:
    """Return the tokens of the longest prompt in the longest layer, given those that enter the first layer."""
    source = (video.lattice_frames, *video.reference.patches)
    front = planned_counts(_front_steps(compressor, video.reference), source, video.total)[-1]
    longest = first if first is not None and steps_that_renumber(compressor.steps()) else front
    return None if longest is None else longest + newlines + video.text_tokens


def _lattice(compressor: Compressor, video: Outline) -> tuple[Shape, bool]:
    """Return the lattice on which the tokens that enter the language model stand, and whether they fill it."""
    shape: Shape = (video.lattice_frames, *video.reference.patches)
    is_filled = video.total is None
    for step in _front_steps(compressor, video.reference):
        planned = step.compressor.planned_shape(shape)
        shape, is_filled = planned or shape, is_filled and planned is not None
    return shape, is_filled


def _front_steps(compressor: Compressor, reference: Reference) -> list[Step]:
    """Return the steps before the language model, including the checkpoint's own pooling."""
    steps = [step for step in compressor.steps() if not step.is_inside]
    if not any(step.place == PATCHES for step in steps):
        early = sum(step.is_before_features for step in steps)
        steps[early:early] = reference.own_pooling.steps()
    return steps
