"""Many questions about one video: `VideoSession` of `stgridpool.decoder.session`, and how a `VideoModel` opens one."""

import torch

from stgridpool.decoder.session import VideoSession
from stgridpool.model import Prompt, VideoModel

__all__ = ["VideoSession", "open_session"]


def open_session(model: VideoModel, prompt: Prompt) -> VideoSession:
    """Prefill the prefix of a prompt, up to the end of its video, which all questions about the video share.

    Args:
        model: The model that made the prompt.
        prompt: A prompt with one video; see `Prompt.shared_ids`.

    Raises:
        ValueError: If the prompt does not have one video with text after it; see also `VideoSession`.
    """
    if prompt.shared_ids is None:
        raise ValueError(f"a prompt must show one video, and text must follow it, got {len(prompt.videos)} videos")
    prefix = torch.cat(prompt.pieces[:2])
    spans = prompt.spans() if model.inside else ()
    inputs = {name: value[..., : len(prefix)] for name, value in prompt.inputs.items()}
    with prompt.handing_over(len(prefix)):
        return VideoSession(model.language_model, prefix, model.inside, spans, model.decoder, inputs)
