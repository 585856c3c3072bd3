"""Training-free compression of the visual tokens of Video LLMs.

A `Compressor` decides, its `Plan` is the decision as a sparse matrix, and `compress_tokens` carries it out.
``__init__.pyi`` lists what can be imported from here; each is loaded when it is first asked for, so that importing
costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
