"""Drawing: where the tokens of a stage stand in pictures, and which cuttings of the frames they show.

Boxes are (x0, y0, x1, y1) in fractions of a frame, from its top left corner. A token is shown as the weighted mean of
what its sources show. Sources in one frame that are close together, such as the window of a pooling, a node of a
quadtree, or the part of a frame that one token of a mosaic stands for, are shown as one cutting.

Letters: T frames of H x W patches, S of them in all; N tokens; M entries; P cuttings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stgridpool.plan import Shape
from stgridpool.show.trace import Stage, entries, owners

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

MOST_CUTTINGS = 32
"""Cuttings of a token that are drawn: those of the largest weight."""
_DENSE = 0.6  # share of a box's area that its patches must have, for the box to be one cutting


@dataclass(frozen=True, eq=False)
class Cuttings:
    """Boxes of frames that tokens show.

    Attributes:
        offsets: (N + 1,), as in `stgridpool.rows.Rows`.
        frame: (P,), the frame that each is cut from.
        box: (P, 4).
        share: (P,), the share of each in its token, 0 to 1.
    """

    offsets: Ints
    frame: Ints
    box: Floats
    share: Floats


@dataclass(frozen=True, eq=False)
class Drawing:
    """The tokens of a stage in pictures.

    Attributes:
        offsets: (N + 1,) of the entries, as in `stgridpool.rows.Rows`.
        sources: (M,), the patch of each.
        weights: (M,), its weight.
        frame: (N,), the frame in which each token stands.
        layer: (N,), 0, or above where tokens stand on one another in a frame: layers are drawn side by side.
        box: (N, 4), the place of each token in its frame.
        merged: (N,), number of tokens merged into each by choice, 1 for one that was selected.
        colour: (N,), the rank of each group that is merged over frames or of scattered patches; -1 for other tokens.
        owner: (S,), the token in which each patch has its largest weight, -1 if it is lost.
        region: (S,), the part of the frame that each patch belongs to: lines separate them; -1 if it is lost.
        reach: (S,), the sum of the weights with which each patch enters tokens, as a share of the largest, 0 to 1.
        cuttings: What each token shows.
    """

    offsets: Ints
    sources: Ints
    weights: Floats
    frame: Ints
    layer: Ints
    box: Floats
    merged: Ints
    colour: Ints
    owner: Ints
    region: Ints
    reach: Floats
    cuttings: Cuttings

    def __len__(self) -> int:
        return len(self.frame)

    @classmethod
    def of(cls, stage: Stage, shape: Shape) -> Drawing:
        """Draw a stage of a (T, H, W) video."""
        rows = entries(stage.plan)
        row, sources, weights = (part.numpy() for part in (rows.row_of_entry(), rows.sources, rows.weights))
        magnitude = np.abs(weights)
        reach = np.bincount(sources, magnitude, minlength=stage.plan.num_sources)
        owner = owners(stage.plan).numpy()
        frame = stage.plan.anchor.cpu().numpy() // (shape[1] * shape[2])
        place, home, is_box = _places(stage)
        _, height, width = stage.lattice
        layer = _layers(frame, home, place)
        merged = stage.chosen.sizes().cpu().numpy()
        return cls(
            offsets=_ints(rows.offsets.numpy()),
            sources=_ints(sources),
            weights=_floats(weights),
            frame=_ints(frame),
            layer=layer,
            box=_floats(place / np.array([width, height] * 2)),
            merged=_ints(merged),
            colour=_ints(np.where(is_box, -1, (~is_box).cumsum() - 1)),
            owner=_ints(owner),
            region=_ints(owner if stage.parts is None else np.where(owner < 0, -1, stage.parts.numpy())),
            reach=_floats(reach / max(float(reach.max()), 1e-12)),
            cuttings=cut(row, sources, magnitude, frame * (int(layer.max()) + 1) + layer, shape),
        )


def _ints(values: Ints) -> Ints:
    return values.astype(np.int32)


def _floats(values: Floats) -> Floats:
    return values.astype(np.float32)


def _places(stage: Stage) -> tuple[Ints, Ints, Bools]:
    """Return the place of each token on its lattice, (N, 4) cells; the frame there, (N,); and whether it is one box.

    A token that is made of a whole box of cells takes their place. If its cells are scattered, or in several frames,
    it takes the box that it has in the frame of its anchor, or else that of the anchor's cell alone.
    """
    _, height, width = stage.lattice
    rows = entries(stage.chosen)
    anchor = stage.chosen.anchor.cpu().numpy()
    home, count = anchor // (height * width), len(anchor)
    row, cells = rows.row_of_entry().numpy(), rows.sources.numpy()
    is_home = cells // (height * width) == home[row]
    corner = np.stack([cells % width, cells // width % height], 1)[is_home]
    low, high = np.full((count, 2), max(height, width)), np.zeros((count, 2), np.int64)
    np.minimum.at(low, row[is_home], corner)
    np.maximum.at(high, row[is_home], corner + 1)
    area = np.bincount(row[is_home], minlength=count)
    is_whole = (area > 0) & ((high - low).prod(axis=1) == area)
    own = np.stack([anchor % width, anchor // width % height], 1)
    place = np.where(is_whole[:, None], np.concatenate([low, high], 1), np.concatenate([own, own + 1], 1))
    return place, home, is_whole & (area == np.bincount(row, minlength=count))


def _layers(frame: Ints, home: Ints, place: Ints) -> Ints:
    """Return the layer of each token, (N,): the lowest of its frame in which it covers no other token.

    Frames of the lattice that stand in one frame are layers of their own.
    """
    side = int(place[:, 2:].max())
    layers = np.zeros(len(frame), np.int32)
    taken: dict[int, list[tuple[int, Bools]]] = {}
    for token, (x0, y0, x1, y1) in enumerate(place.tolist()):
        here = taken.setdefault(int(frame[token]), [])
        for number, (of, cells) in enumerate(here):  # noqa: B007  # used after the loop
            if of == home[token] and not cells[y0:y1, x0:x1].any():
                break
        else:
            number, cells = len(here), np.zeros((side, side), np.bool_)
            here.append((int(home[token]), cells))
        cells[y0:y1, x0:x1] = True
        layers[token] = number
    return layers


def cut(row: Ints, sources: Ints, weights: Floats, picture: Ints, shape: Shape) -> Cuttings:
    """Return what tokens show.

    Patches of one token that fill most of a box are shown as that box, less what other tokens of the picture have of
    the patches at its edges: so the boxes of an interpolation, or of windows that overlap, lie side by side.

    Args:
        row: (M,), the token of each entry, ascending.
        sources: (M,), its patch.
        weights: (M,), above 0.
        picture: (N,), number of the picture in which each token stands.
        shape: (T, H, W) of the patches.
    """
    frames, height, width = shape
    frame = sources // (height * width)
    corner = np.stack([sources % width, sources // width % height], 1)  # (M, 2)
    pair, first, group = np.unique(row * np.int64(frames) + frame, return_index=True, return_inverse=True)
    share = _shares(row, sources, weights, picture)
    box = np.concatenate([_edge(corner, share, group), -_edge(-corner - 1, share, group)], 1)  # (G, 4)
    is_dense = np.bincount(group) >= _DENSE * _area(corner, group)
    alone = ~is_dense[group]  # entries that are cuttings of their own
    box = np.concatenate([box[is_dense], np.concatenate([corner, corner + 1], 1)[alone]])
    owner = np.concatenate([pair[is_dense] // frames, row[alone]])
    of_frame = np.concatenate([frame[first][is_dense], frame[alone]])
    total = np.concatenate([np.bincount(group, weights)[is_dense], weights[alone]])
    return _largest(owner, of_frame, box / np.array([width, height] * 2), total, len(picture))


def _shares(row: Ints, sources: Ints, weights: Floats, picture: Ints) -> Floats:
    """Return the share of each entry in the weight with which its patch enters tokens of one picture, (M,)."""
    place = picture[row] * np.int64(sources.max(initial=0) + 1) + sources
    _, group = np.unique(place, return_inverse=True)
    return weights / np.bincount(group, weights)[group]


def _area(corner: Ints, group: Ints) -> Ints:
    """Return the area of the box around the patches of each group, (G,)."""
    low, high = _range(corner, group)
    area: Ints = (high - low + 1).prod(axis=1)
    return area


def _range(corner: Ints, group: Ints) -> tuple[Ints, Ints]:
    """Return the smallest and the largest column and row of each group, (G, 2) each."""
    limits, count = np.iinfo(np.int64), group.max(initial=-1) + 1
    low, high = np.full((count, 2), limits.max), np.full((count, 2), limits.min)
    np.minimum.at(low, group, corner)
    np.maximum.at(high, group, corner)
    return low, high


def _edge(corner: Ints, share: Floats, group: Ints) -> Floats:
    """Return the lower edges of boxes, (G, 2): within the first patches, the further in the less their share is."""
    lowest, highest = _range(corner, group)
    share = np.where(corner == lowest[group], share[:, None], 0)
    largest = np.zeros(lowest.shape)
    np.maximum.at(largest, group, share)
    edge: Floats = lowest.astype(np.float64) + np.where(lowest == highest, 0.0, 1 - largest)
    return edge


def _largest(owner: Ints, frame: Ints, box: Floats, weight: Floats, count: int) -> Cuttings:
    """Keep the `MOST_CUTTINGS` of the largest weight of each token, in that order."""
    order = np.lexsort((-weight, owner))
    owner = owner[order]
    starts = np.searchsorted(owner, np.arange(count + 1))
    is_kept = np.arange(len(owner)) - starts[owner] < MOST_CUTTINGS
    order, owner = order[is_kept], owner[is_kept]
    share = weight[order] / np.bincount(owner, weight[order], minlength=count)[owner]
    offsets = np.searchsorted(owner, np.arange(count + 1))
    return Cuttings(_ints(offsets), _ints(frame[order]), _floats(box[order]), _floats(share))
