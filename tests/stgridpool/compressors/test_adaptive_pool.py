"""PLLaVA's pooling, against torch's adaptive average."""

import pytest
import torch
from torch.nn import functional as F

from stgridpool import AdaptivePool


@pytest.mark.parametrize(
    ("shape", "options", "planned"),
    [
        ((16, 24, 24), {}, (16, 12, 12)),  # PLLaVA's own
        ((20, 27, 27), {}, (16, 12, 12)),  # windows overlap
        ((7, 5, 9), {"frames": 3, "size": (2, 4)}, (3, 2, 4)),
        ((9, 3, 14), {"frames": 4, "size": 5}, (4, 3, 5)),  # three rows stay
        ((2, 4, 4), {"frames": 5, "size": [4, 1]}, (2, 4, 1)),
        ((1, 1, 1), {}, (1, 1, 1)),
    ],
    ids=str,
)
def test_equals_torch(shape, options, planned):
    maps = torch.randn(*shape, 3)
    method = AdaptivePool(**options)
    out, plan = method(maps)
    expected = F.adaptive_avg_pool3d(maps.permute(3, 0, 1, 2), planned).permute(1, 2, 3, 0)
    torch.testing.assert_close(out.view(*planned, 3), expected)
    assert plan.shape == method.planned_shape(shape) == planned
    # Each stands on the first token of its window.
    starts = [[new * old // count for new in range(count)] for old, count in zip(shape, planned, strict=True)]
    corners = [(t * shape[1] + y) * shape[2] + x for t in starts[0] for y in starts[1] for x in starts[2]]
    assert plan.anchor.tolist() == corners


def test_bad_options():
    assert AdaptivePool(size=[3, 4]) == AdaptivePool(size=(3, 4))
    with pytest.raises(ValueError, match="frames must be a whole number from 1 to 100000, got 0"):
        AdaptivePool(frames=0)
    with pytest.raises(ValueError, match="size must be a whole number from 1 to 256, or"):
        AdaptivePool(size=(12, 0))
