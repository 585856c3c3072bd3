"""Native models of transformers: one file per family, and what they share.

A model's *inputs* are compressed; model and processor stay as they are. `visual_runs` encodes the videos of a prompt
with the model's own vision part and finds their placeholders, `compress_run` compresses one, `write_prompt` rewrites
the prompt with fewer tokens, and `compress_inputs` does all three. `stgridpool.compress` does so for a whole block.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
