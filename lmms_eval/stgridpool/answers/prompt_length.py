"""The length of a prompt against what the model allows."""

from stgridpool.compressor import planned_counts, steps_that_renumber
from stgridpool.model import Prompt, VideoModel


def check_length(model: VideoModel, prompt: Prompt) -> None:
    """Check that no layer gets more positions than the model allows.

    Raises:
        ValueError: If one does.
    """
    length = longest_layer(model, prompt)
    if model.longest is not None and length > model.longest:
        visual = sum(video.num_tokens for _, video in prompt.videos) - (len(prompt) - length)
        raise ValueError(
            f"a prompt of {length} tokens, {visual} of them visual, is longer than the checkpoint's "
            f"tokenizer_model_max_length = {model.longest}: lower max_frames_num, raise max_length or choose a "
            "stronger compressor"
        )


def longest_layer(model: VideoModel, prompt: Prompt) -> int:
    """Return the number of positions that the longest layer reads, which is always the first one.

    A method before it shortens the prompt, if it numbers positions again and its settings imply how many tokens
    it keeps. Newline tokens count as if all were kept.
    """
    steps = () if model.inside is None else steps_that_renumber(model.inside.steps)
    length = len(prompt)
    for _, video in prompt.videos if steps else ():
        kept = planned_counts(steps, video.shape, None if video.cell is None else video.num_tokens)[-1]
        length -= 0 if kept is None else video.num_tokens - kept
    return length
