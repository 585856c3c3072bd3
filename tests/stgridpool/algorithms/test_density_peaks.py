"""Density peaks against their definition, written out; sets of different sizes; ties and extremes."""

import math

import pytest
import torch

from stgridpool.algorithms.density_peaks import nearest_peaks, peak_scores, peaks, scaled_distances

SIZES = [7, 1, 4]


def by_definition(vectors, neighbours):
    n, width = vectors.shape
    distance = [[float((a - b).norm()) / math.sqrt(width) for b in vectors] for a in vectors]
    near = [sorted(row)[: min(neighbours, n)] for row in distance]
    density = [math.exp(-sum(d * d for d in row) / len(row)) for row in near]
    scores = []
    for i in range(n):
        denser = [j for j in range(n) if density[j] > density[i] or (density[j] == density[i] and j < i)]
        apart = min(distance[i][j] for j in denser) if denser else max(map(max, distance))
        scores.append(density[i] * apart)
    return distance, scores


@pytest.mark.parametrize("neighbours", [1, 4, 100])
def test_sets_of_different_sizes_by_definition(neighbours):
    features = torch.randn(3, 7, 5, dtype=torch.float64)
    is_there = torch.arange(7) < torch.tensor(SIZES)[:, None]
    distances = scaled_distances(features.float(), is_there)
    scores = peak_scores(distances, is_there, neighbours)
    for number, size in enumerate(SIZES):
        distance, expected = by_definition(features[number, :size], neighbours)
        torch.testing.assert_close(distances[number, :size, :size], torch.tensor(distance), atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(scores[number, :size], torch.tensor(expected), atol=2e-6, rtol=1e-5)
        assert (scores[number, size:] == -torch.inf).all()
    centres, is_taken = peaks(scores, torch.tensor([3, 1, 2]))
    assert is_taken.tolist() == [[True] * 3, [True, False, False], [True, True, False]]
    goes_to = nearest_peaks(distances, centres, is_taken)
    for number, (size, count) in enumerate(zip(SIZES, (3, 1, 2), strict=True)):
        _, expected = by_definition(features[number, :size], neighbours)
        chosen = sorted(range(size), key=lambda i: -expected[i])[:count]
        assert centres[number, :count].tolist() == chosen
        nearest = [min(range(count), key=lambda c: float(distances[number, i, chosen[c]])) for i in range(size)]
        assert goes_to[number, :size].tolist() == nearest


def test_of_equals_the_first_is_the_denser():
    """Four equal members: the first is the densest, all distances are 0, so all scores are; centres keep themselves."""
    is_there = torch.ones(1, 4, dtype=torch.bool)
    distances = scaled_distances(torch.ones(1, 4, 3), is_there)
    scores = peak_scores(distances, is_there, 2)
    assert scores.tolist() == [[0.0] * 4]
    centres, is_taken = peaks(scores, torch.tensor([2]))
    assert centres.tolist() == [[0, 1]]
    assert nearest_peaks(distances, centres, is_taken).tolist() == [[0, 1, 0, 0]]


@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1e38])
def test_extremes_stay_finite(magnitude):
    is_there = torch.ones(1, 5, dtype=torch.bool)
    distances = scaled_distances(torch.randn(1, 5, 3).clamp(-3, 3) * magnitude, is_there)
    assert distances.isfinite().all()
    assert peak_scores(distances, is_there, 3).isfinite().all()


def test_equal_densities_may_both_be_the_highest():
    """0 and 1 are each other's nearest, 10 is alone: densities are equal for the first two, and 10 is the largest."""
    distances = (torch.tensor([0.0, 1.0, 10.0])[:, None] - torch.tensor([0.0, 1.0, 10.0])).abs()[None]
    is_there = torch.ones(1, 3, dtype=torch.bool)
    density, far = math.exp(-0.5), math.exp(-81 / 2)
    both = peak_scores(distances, is_there, 2, first_is_denser=False)
    torch.testing.assert_close(both, torch.tensor([[10 * density, 10 * density, 9 * far]]))
    torch.testing.assert_close(peak_scores(distances, is_there, 2), torch.tensor([[10 * density, density, 9 * far]]))
