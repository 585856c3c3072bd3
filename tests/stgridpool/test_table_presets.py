"""Presets of published comparisons."""

import pytest

from stgridpool import STGridPool, build_compressor, presets
from stgridpool.table_presets import TABLE_PRESETS


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_the_budgets_of_the_comparison_on_nvila(share):
    preset = f"nvila/{100 * share:.0f}"
    for name in ("prumerge", "fastervlm", "visionzip"):
        assert build_compressor(name, preset=preset) == build_compressor(name, retention=share)
        assert build_compressor(name, preset=preset).planned_count((8, 16, 16)) == int(8 * 256 * share)
    for name in ("fastv", "framefusion", "st_simdiff"):
        assert build_compressor(name, preset=preset) == build_compressor(name, layer_average=share)
    assert preset in presets("fastv")


def test_st_gridpool_has_its_released_windows():
    assert build_compressor("st_gridpool", preset="nvila/30") == STGridPool()
    assert STGridPool().planned_count((64, 16, 16)) == 64 * 64


def test_explicit_options_take_precedence():
    assert build_compressor("fastv", preset="nvila/30", layer=3) == build_compressor(
        "fastv", layer_average=0.3, layer=3
    )
    assert build_compressor("visionzip", preset="nvila/50", retention=0.4).budget == (
        build_compressor("visionzip", retention=0.4).budget
    )


def test_methods_that_are_not_in_the_table():
    with pytest.raises(ValueError, match="nsp has no preset 'nvila/30'; these have: prumerge"):
        build_compressor("nsp", preset="nvila/30")
    with pytest.raises(ValueError, match="st_gridpool has no preset 'nvila/50'"):
        build_compressor("st_gridpool", preset="nvila/50")
    assert all("nsp" not in methods for methods in TABLE_PRESETS.values())
