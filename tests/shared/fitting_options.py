"""Options with which methods fit into the small models of the tests."""

FITTING = {
    "aot": {"shallow": -2, "deep": -1},
    "earlytom": {"layers": [-2, -1]},
    "earlytom_frames": {"layers": [-2, -1]},
    "fastvid": {"importance": "received", "frames": "mean"},
    "framefusion": {"layer_average": 0.8},
    "fastv": {"layer": 1},
    "pyramid_drop": {"layers": [1], "keep": [0.5]},
    "sparsevlm": {"preset": None, "layers": [1], "keep": [0.5]},
    "st_simdiff": {"layer": 1, "layer_average": 0.8},
    "sttm": {"layer": 1},
}
"""For a tower of 2 layers without its pooling head, and a language model of 2 layers or more."""
