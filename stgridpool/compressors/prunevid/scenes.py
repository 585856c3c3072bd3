"""Scenes of a video: clusters of like frames, smoothed so that each scene is one stretch of frames."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor

from stgridpool.algorithms.density_peaks import nearest_peaks, peak_scores, peaks, scaled_distances


def scene_lengths(vectors: Tensor, count: int, neighbours: int) -> Tensor:
    """Cut a video into at most `count` scenes by the vectors of its frames (T, D): (S,) int64 on the CPU.

    Frames are clustered by density peaks, and the labels smoothed, see `smoothed`. Waits for the device.
    """
    is_there = torch.ones(1, len(vectors), dtype=torch.bool, device=vectors.device)
    distances = scaled_distances(vectors[None], is_there)
    centres, is_taken = peaks(peak_scores(distances, is_there, neighbours), torch.tensor([count]))
    labels = smoothed(nearest_peaks(distances, centres, is_taken)[0].tolist())
    return torch.tensor([len(list(run)) for _, run in groupby(labels)])


def smoothed(labels: list[int]) -> list[int]:
    """Keep the longest runs of each label, if they are longer than a frame, and give other frames to their neighbours.

    A stretch between two such runs takes the label of the longer one (the earlier of equals); from left to right, so
    that a run grows by the stretches that it has taken. Without any such run all frames are one scene.
    """
    runs = [(label, len(list(run))) for label, run in groupby(labels)]
    longest = {label: max(length for one, length in runs if one == label) for label in set(labels)}
    stretches: list[tuple[int | None, int]] = []  # label, None where it is to be found, and length
    for label, length in runs:
        is_kept = 1 < length == longest[label]
        goes_on = not is_kept and stretches and stretches[-1][0] is None
        stretches.append((label if is_kept else None, length + (stretches.pop()[1] if goes_on else 0)))
    out: list[int] = []
    for number, (given, length) in enumerate(stretches):
        following, after = stretches[number + 1] if number + 1 < len(stretches) else (None, 0)
        before = len(list(next(groupby(reversed(out)))[1])) if out else 0
        nearest = out[-1] if before and before >= after else following
        out += [(nearest if given is None else given) or 0] * length
    return out
