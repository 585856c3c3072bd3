"""Score an answer that the task provides, by its loss."""

import torch
from torch.nn import functional as F

from lmms_eval_stgridpool.answers.shared_prefix import SharedPrefix, count_whole_prompt
from lmms_eval_stgridpool.videos.encoding import Media
from stgridpool.finite import LANGUAGE_MODEL, NonFiniteError, all_finite, fetch, first_failure, flags_of
from stgridpool.model import Prompt, VideoModel, last_logits
from stgridpool.retention import LayerLengths, VisualCounts
from stgridpool.timing import StageTimer


def score(
    model: VideoModel, shared: SharedPrefix, prompt: Prompt, media: Media, timer: StageTimer
) -> tuple[float, bool, VisualCounts | None]:
    """Compute the mean loss of the answer in a prompt, and whether greedy decoding would produce it; stage "prefill".

    lmms-eval's multiple-choice tasks choose the answer with the smallest number, so this returns a loss instead of a
    log-likelihood. As in the original clients, the loss includes the tokens that close the turn.

    Args:
        model: The model.
        shared: The prefix that questions about one video share.
        prompt: A prompt with an answer.
        media: The visuals in the prompt.
        timer: Receives the time of the stage.

    Returns:
        The loss in nats per token, at least 0; the comparison with greedy decoding, which ignores the tokens that close
        the turn; and the visual tokens of the prompt, None without a video.

    Raises:
        NonFiniteError: If the loss comes from features or logits that are not finite.
    """
    scored = prompt.ids[len(prompt.ids) - prompt.num_answer :]
    end = len(scored) - prompt.num_closing
    with timer.stage("prefill"), torch.inference_mode():
        logits, counts = _last_logits(model, shared, prompt, media, len(scored) + 1)
        dtype, logits = logits.dtype, logits[:-1].float()  # (number scored, vocabulary): each predicts the next id
        scored = scored.to(logits.device)
        loss = F.cross_entropy(logits, scored)
        is_greedy = (logits[:end].argmax(dim=-1) == scored[:end]).all()
        found = fetch(loss, is_greedy, all_finite(logits), flags_of(media.checks, logits.device))
    error = first_failure(media.checks, found[3])
    if error is not None:
        raise error
    if not found[2]:
        raise NonFiniteError(LANGUAGE_MODEL, dtype)
    return float(found[0]), bool(found[1]), counts


def _last_logits(
    model: VideoModel, shared: SharedPrefix, prompt: Prompt, media: Media, count: int
) -> tuple[torch.Tensor, VisualCounts | None]:
    """Compute the logits (count, vocabulary) at the last positions of a prompt, and count its visual tokens."""
    opened = shared.open(prompt, media)
    if opened is not None:
        return opened.session.logits(opened.suffix, opened.positions, count), opened.counts
    with LayerLengths(model.decoder.layers).of_first_forward() as entering:
        logits = last_logits(model, prompt, count)
    return logits, count_whole_prompt(model, prompt, entering)
