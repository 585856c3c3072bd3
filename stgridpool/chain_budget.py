"""One budget for a chain of methods, such as ``visionzip+fastv``: what each of them leaves so that the whole meets it.

Methods inside the language model keep fractions of what reaches them. They stay as they are if the last method before
the language model has a budget: it then leaves what the whole needs, as FlashVID shares its budget. Where that would be
more than everything, it leaves everything, and the methods inside leave more, in proportion. If no method before the
language model has a budget, those inside alone meet it. Steps in the vision tower may come first: budgets after them
count all frames. Every step rounds its tokens down.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from stgridpool.budget import split_layer_average
from stgridpool.compressor import Compressor, EncoderLayer, Step
from stgridpool.equal_budget import ENTERING, LAST, Reference, check_layers, planned_layers
from stgridpool.layer_average import OverLayers
from stgridpool.other_method import budgeted, with_budget

_LENGTHS = (32, 64)
"""Numbers of frames at which a method before the language model must leave the same share, if many may come."""
_EXACT = 1e-12


def under_one_budget(
    methods: Sequence[Compressor], share: float, of: str, reference: Reference
) -> tuple[Compressor, ...]:
    """Return the methods with options that leave `share` of the checkpoint's own tokens; see the module.

    Args:
        methods: In the order of the model, their options for its depth settled.
        share: Share to leave, above 0 and at most 1.
        of: Which retention, one of `stgridpool.retention.DEFINITIONS`.
        reference: The checkpoint.

    Raises:
        ValueError: If they cannot; the message says why.
    """
    front = [method for method in methods if not method.acting()[0].is_inside]
    inside = [step for method in methods for step in method.acting() if step.is_inside]
    is_free = bool(front) and budgeted(front[-1]) is not None
    acts_at_once = of == ENTERING and any(step.place == 0 for step in inside)
    if acts_at_once or (not is_free and (of == ENTERING or not inside)):
        why = ": a method inside leaves less before layer 0; ask for another definition" if acts_at_once else ""
        raise ValueError(f"{_named(methods)} has no budget by which {of} could be {share:g}{why}")
    check_layers(inside, reference.num_layers)
    others, wanted = methods[len(front) :], _wanted(front, is_free, share, of, reference)
    acts_once_more = any(step.is_inside for method in front for step in method.acting())
    single = others[0] if len(others) == 1 and not acts_once_more else None
    if not is_free and single is not None:
        return (*front, _alone(single, wanted, of, reference))
    found: dict[int, Compressor] = {}
    if isinstance(single, OverLayers):
        entering = _entering(single, wanted, of)
    else:
        entering, after = _split(wanted, of, is_free, _shares(inside), _lengths(inside, reference.num_layers))
        if single is None or entering < 1:
            found = _scaled(methods, inside, after)
    if single is not None and entering == 1 and of != ENTERING:
        found = {id(single): _alone(single, wanted, of, reference)}
    if is_free:
        found[id(front[-1])] = front[-1].at_retention(entering, ENTERING, reference)
    return tuple(found.get(id(method), method) for method in methods)


def _wanted(front: Sequence[Compressor], is_free: bool, share: float, of: str, reference: Reference) -> float:
    """Return the share to leave of the tokens that reach the methods which meet the budget.

    Raises:
        ValueError: If methods before them leave less, or an unknown share.
    """
    before = [one for one in front[:-1] if not _is_in_tower(one)] if is_free else front
    most = _left(before, reference)
    if share > most:
        raise ValueError(f"{_named(before)} leaves {most:.4g} of the tokens, so {of} cannot be {share:g}: ask for less")
    return share / most


def _entering(inside: OverLayers, share: float, of: str) -> float:
    """Return the share that must enter the language model before a method that keeps its mean over layers.

    For the last layer that is all, since no option of the method decides what it holds.
    """
    return 1.0 if of == LAST else min(1.0, share / inside.layer_average)


def _alone(method: Compressor, share: float, of: str, reference: Reference) -> Compressor:
    """Return a method inside that meets the whole budget, `share` of what enters the language model."""
    return method.at_retention(share, of, reference).for_depth(reference.num_layers)


def _is_in_tower(method: Compressor) -> bool:
    return all(isinstance(step.place, EncoderLayer) for step in method.steps())


def _shares(inside: Sequence[Step]) -> list[float]:
    """Return the share of what enters the language model that is left after each step inside.

    Raises:
        ValueError: If a step does not leave a fraction.
    """
    shares = [1.0]
    for step in inside:
        method, inner = step.compressor, budgeted(step.compressor)
        ratio = None if inner is None else inner.budget.ratio
        if ratio is None:
            raise ValueError(f"in a chain under one budget, methods inside must leave a fraction, not {method!r}")
        shares.append(ratio * shares[-1 - method.counts_from])
    return shares[1:]


def _left(front: Sequence[Compressor], reference: Reference) -> float:
    """Return the share of the own tokens that methods before the language model leave; 1 for none.

    Raises:
        ValueError: If the tokens or the number of frames decide.
    """
    if not front:
        return 1.0
    from stgridpool.chain import Chain  # noqa: PLC0415 - which imports this module

    method = front[0] if len(front) == 1 else Chain(tuple(front))
    lengths = _LENGTHS if reference.num_frames is None else (reference.num_frames,)
    counts = [planned_layers(method, frames, reference)[0] for frames in lengths]
    first, *others = (
        count and count / reference.own_count(frames) for count, frames in zip(counts, lengths, strict=True)
    )
    if first is None or any(other != first for other in others):
        raise ValueError(f"in a chain under one budget, what {method!r} leaves must be a known share of the tokens")
    return first


def _lengths(inside: Sequence[Step], num_layers: int) -> list[int]:
    """Return the number of layers before the first step, between steps, and after the last."""
    places = [step.place for step in inside if isinstance(step.place, int)]
    return [after - before for before, after in pairwise([0, *places, num_layers])]


def _split(share: float, of: str, is_free: bool, shares: list[float], lengths: list[int]) -> tuple[float, list[float]]:
    """Return the share of the tokens that enters, and the shares of those that are left after each step inside.

    Args:
        share: Share to leave of the tokens that the last method before the language model gets, or, if it stays as it
            is, leaves.
        of: See `under_one_budget`.
        is_free: Whether the last method before the language model has a budget.
        shares: See `_shares`.
        lengths: See `_lengths`.
    """
    if of == ENTERING:
        return share, shares
    if of == LAST:
        last = shares[-1] if shares else 1.0
        entering = min(1.0, share / last) if is_free else 1.0
        return entering, [min(1.0, one * share / entering / last) for one in shares]
    entering, *left = split_layer_average(share, lengths, (1.0 if is_free else None, *shares))
    return entering, [one / entering for one in left]


def _scaled(methods: Sequence[Compressor], inside: Sequence[Step], shares: Sequence[float]) -> dict[int, Compressor]:
    """Return the methods, by the identity of those that they replace, whose steps inside leave other `shares` now.

    Raises:
        ValueError: If its method has no option for what a step leaves.
    """
    found: dict[int, Compressor] = {}
    known = [1.0, *shares]
    for number, step in enumerate(inside):
        method, inner = step.compressor, budgeted(step.compressor)
        ratio = known[number + 1] / known[number - method.counts_from]
        if inner is None or inner.budget.ratio is None or abs(ratio - inner.budget.ratio) < _EXACT:
            continue
        if not any(method is one for one in methods):
            raise ValueError(f"{method!r} would have to leave {ratio:.4g}, which is not an option: ask for less")
        found[id(method)] = with_budget(method, retention=ratio)
    return found


def _named(methods: Sequence[Compressor]) -> str:
    return " + ".join(map(repr, methods))
