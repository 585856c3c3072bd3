"""Which methods the contract tests run on."""

from __future__ import annotations

from dataclasses import fields

from stgridpool import Chain, build_compressor
from stgridpool.compressor import FRAMES, PATCHES, TOKENS
from stgridpool.compressors import COMPRESSORS
from stgridpool.contract.cases import methods_to_test


def test_presets_are_left_out_only_for_their_thresholds():
    """A preset that is not tested has the settings of one that is, or other thresholds."""
    methods = methods_to_test()
    assert {"dycoke_ttm[sttm]", "framefusion[released]", "tome[released]", "vidcom2[vllm]"} < set(methods)
    left_out = 0
    for name, kind in COMPRESSORS.items():
        tested = [method for key, method in methods.items() if key == name or key.startswith(f"{name}[")]
        for preset in getattr(kind, "PRESETS", ()):
            if (method := build_compressor(name, preset=preset)) not in tested:
                left_out += 1
                assert any(differences(method, one) for one in tested), (name, preset)
    assert left_out > 10


def differences(method, other):
    """The names of the thresholds in which two methods differ; none if they differ in more."""
    names = {field.name for field in fields(method) if getattr(method, field.name) != getattr(other, field.name)}
    names -= {"preset"}
    return names if all(name.endswith("_threshold") for name in names) else set()


def test_there_are_forty_compositions_of_all_kinds():
    """They act on frames, in place of the own pooling, behind it and in the language model, two or three at a time."""
    chains = {name: method for name, method in methods_to_test().items() if isinstance(method, Chain)}
    assert len(chains) == 40
    assert {len(name.split("+")) for name in chains} == {2, 3}
    places = {step.place for method in chains.values() for step in method.steps()}
    assert {FRAMES, PATCHES, TOKENS} < places
    assert len({part for name in chains for part in name.split("+")}) > len(COMPRESSORS) / 2
