"""Pooling modes as compressors."""

import pytest

from llava.model.own_pooling import pooling_compressor
from stgridpool import Average, Bilinear, Max


def test_modes_and_strides():
    assert pooling_compressor("bilinear") == Bilinear(stride=2)
    assert pooling_compressor("bilinear", 3) == Bilinear(stride=3)
    assert pooling_compressor("average", 4) == Average(kernel_size=4, stride=4)
    assert pooling_compressor("max") == Max(kernel_size=2, stride=2)


def test_unknown_modes():
    with pytest.raises(ValueError, match="must be one of average, max, bilinear, got 'sum'"):
        pooling_compressor("sum")
