"""How the work of each method grows with its input, by its specification, in its default settings.

Letters: T frames of R tokens, N = T R tokens of width D, C tokens kept of each frame, d width of keys.
"""

from __future__ import annotations

from typing import NamedTuple

from stgridpool import COMPRESSORS


class Order(NamedTuple):
    """The order of a method's work.

    Attributes:
        formula: In the letters above.
        compares: What it compares in pairs; None if it reads the features a fixed number of times.
        loops_over: What its number of calls to torch grows with, other than frames; None if they are as many for any R.
    """

    formula: str = "N D"
    compares: str | None = None
    loops_over: str | None = None


IN_FRAME, IN_VIDEO = "tokens of a frame", "tokens of the video"
ORDERS = {
    "aot": Order("T R C D", IN_FRAME, "rounds of optimal transport"),
    "cdpruner": Order("T R² D", IN_FRAME, "picks"),
    "divprune": Order("N² D", IN_VIDEO, "picks"),
    "earlytom": Order("T² R D + T² C² D", IN_VIDEO),
    "earlytom_frames": Order("T² R D", "frames"),
    "fastvid": Order("T R² D", IN_FRAME),
    "flashvid": Order("T R² D", IN_FRAME, "picks"),
    "holitom": Order("T² C² D", IN_VIDEO),
    "llava_scissor": Order("N² D", IN_VIDEO, "rounds of labels"),
    "per_segment": Order("N² D", IN_VIDEO, "picks"),  # if the video changes nowhere; T R² D if cut between all frames
    "prumerge": Order("T R C d", IN_FRAME),
    "prumerge_plus": Order("T R C d", IN_FRAME),
    "prunevid": Order("T R² D", IN_FRAME),
    "recycle": Order("T R C D", IN_FRAME),
    "sparsevlm": Order("N² D", IN_VIDEO),
    "sttm": Order("N D log R", "nested nodes of a frame and of its neighbours", "levels"),
    "tome": Order("T R² D", IN_FRAME),
    "visionzip": Order("T R C d", IN_FRAME),
}
"""Of methods that do more than read the features a fixed number of times; `Order()` is that of all others."""


def order_of(method: str) -> Order | None:
    """Return the order of a method of this project; None for others."""
    return ORDERS.get(method, Order()) if method in COMPRESSORS else None


def growth(method: object, times: float) -> tuple[float, float]:
    """Return by how much a method's time and its memory grow if frames have `times` as many tokens.

    Similarities within a frame are few beside the features, those of a whole video are not.
    """
    compares = ORDERS.get(str(method), Order()).compares
    return (times**2 if compares in (IN_FRAME, IN_VIDEO) else times), times**2 if compares == IN_VIDEO else times
