"""Generate free text for questions: as a batch if they share a prefix, otherwise one by one."""

from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import torch

from llava.mm_utils import KeywordsStoppingCriteria
from lmms_eval_stgridpool.answers.generation_settings import GenerationSettings
from lmms_eval_stgridpool.answers.prompt_penalty import penalty_options
from lmms_eval_stgridpool.answers.shared_prefix import SharedPrefix, count_whole_prompt
from lmms_eval_stgridpool.answers.stopping import FirstToken, Limits, Until, cut
from lmms_eval_stgridpool.videos.encoding import Media
from stgridpool import model as video_model
from stgridpool.finite import LogitsWatch, NonFiniteError, fetch, first_failure, flags_of
from stgridpool.model import Prompt, VideoModel
from stgridpool.retention import LayerLengths, VisualCounts
from stgridpool.timing import StageTimer


@dataclass(frozen=True, eq=False)
class PreparedQuestion:
    """A question that is ready for the language model.

    Attributes:
        prompt: The prompt.
        media: The visuals in the prompt.
        settings: How to generate the answer.
    """

    prompt: Prompt
    media: Media
    settings: GenerationSettings


@dataclass(frozen=True)
class Generated:
    """An answer.

    Attributes:
        text: The answer.
        num_tokens: Number of tokens generated for it.
        error: Why the text is meaningless; None if everything that it was computed from is finite.
        counts: Visual tokens of its prompt; None without a video.
        together: Number of answers in its batch, including this one.
    """

    text: str
    num_tokens: int
    error: NonFiniteError | None = None
    counts: VisualCounts | None = None
    together: int = 1


def generate(
    model: VideoModel, shared: SharedPrefix, questions: Sequence[PreparedQuestion], timer: StageTimer
) -> list[Generated]:
    """Answer questions; stages "prefill" (up to the first token) and "generate".

    Greedy answers that share a prefix are generated as one batch, each with its own limits. All others are generated
    one by one. Only one prefix is in memory at a time. An answer has an error if its features or logits are not finite;
    other answers of the same batch are not affected.

    Args:
        model: The model.
        shared: The prefix that questions about one video share.
        questions: The questions.
        timer: Receives the time of each stage.

    Raises:
        RuntimeError: If the number of visual tokens in the model differs from what the compressors planned.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, question in enumerate(questions):
        prefix = shared.ids(question.prompt)
        groups.setdefault(index if prefix is None else (id(question.media), *prefix.tolist()), []).append(index)
    answers: dict[int, Generated] = {}
    for group in groups.values():
        own = [questions[index] for index in group]
        answers |= zip(group, _generate_group(model, shared, own, timer), strict=True)
    return [answers[index] for index in range(len(questions))]


def _generate_group(
    model: VideoModel, shared: SharedPrefix, questions: Sequence[PreparedQuestion], timer: StageTimer
) -> list[Generated]:
    """Answer questions with one prefix, or a single question that shares none."""
    with torch.inference_mode(), timer.stage("prefill"):
        opened = [one for one in (shared.open(each.prompt, each.media) for each in questions) if one is not None]
    if not opened:
        [question] = questions
        proceed = partial(video_model.generate, model, question.prompt)
        with LayerLengths(model.decoder.layers).of_first_forward() as entering:
            [answer] = _generate_batch(model, questions, timer, proceed)
        return [replace(answer, counts=count_whole_prompt(model, question.prompt, entering))]
    session, counts = opened[0].session, opened[0].counts
    suffixes, positions = [one.suffix for one in opened], [one.positions for one in opened]
    if all(one.settings.do_sample is False and one.settings.num_beams == 1 for one in questions):
        found = _generate_batch(model, questions, timer, partial(session.generate, suffixes, positions))
        return [replace(answer, counts=counts, together=len(found)) for answer in found]
    answers = []
    for question, suffix, own in zip(questions, suffixes, positions, strict=True):
        [answer] = _generate_batch(model, [question], timer, partial(session.generate, [suffix], [own]))
        answers.append(replace(answer, counts=counts))
    return answers


def _generate_batch(
    model: VideoModel, questions: Sequence[PreparedQuestion], timer: StageTimer, proceed: Callable[..., torch.Tensor]
) -> list[Generated]:
    """Answer questions whose settings differ only in the length and the end of the answer."""
    tokenizer, settings, stop = model.tokenizer, [question.settings for question in questions], model.stop_text
    criteria = [
        [
            *([KeywordsStoppingCriteria([stop], tokenizer, one.prompt.ids[None])] if stop is not None else []),
            Until(one.settings.until, tokenizer),
        ]
        for one in questions
    ]
    limits = Limits(criteria, [one.max_new_tokens for one in settings])
    longest = max(one.max_new_tokens for one in settings)
    watch = LogitsWatch(model.language_model)
    prompts = [one.prompt.ids for one in questions]
    penalty = penalty_options(model.language_model, prompts) if model.penalises_prompt else {}
    with ExitStack() as stages, torch.inference_mode():
        stages.enter_context(timer.stage("prefill"))
        output = proceed(
            watch=watch,
            pad_token_id=tokenizer.pad_token_id,
            stopping_criteria=[FirstToken(stages, timer), limits],
            use_cache=True,
            **penalty,
            **settings[0].for_model() | {"max_new_tokens": longest},
        )
    return _read_answers(model, questions, output, limits.lengths, watch)


def _read_answers(
    model: VideoModel,
    questions: Sequence[PreparedQuestion],
    output: torch.Tensor,
    limits: Sequence[int | None],
    watch: LogitsWatch,
) -> list[Generated]:
    """Decode the new tokens (B, m) of a batch, and note what was not finite."""
    checks = questions[0].media.checks
    rows, steps, stages = fetch(output, watch.flags(), flags_of(checks, output.device))
    of_media, of_logits = first_failure(checks, stages), watch.error
    is_searched = questions[0].settings.num_beams > 1  # then every step of every beam counts
    answers = []
    of_answers = steps.view(len(steps), len(rows), -1).unbind(1)  # (steps, beams) of each
    for row, is_finite, limit, question in zip(rows, of_answers, limits, questions, strict=True):
        tokens = row[: _length(model, row, limit)]
        text = cut(model.tokenizer.decode(tokens, skip_special_tokens=True), question.settings.until)
        is_lost = not is_finite[: None if is_searched else len(tokens)].all()
        answers.append(Generated(text, len(tokens), of_media or (of_logits if is_lost else None)))
    return answers


def _length(model: VideoModel, row: torch.Tensor, limit: int | None) -> int:
    """Count the tokens of an answer, including the one that ends it; what follows in a batch is padding."""
    ends = model.language_model.generation_config.eos_token_id
    length = len(row) if limit is None else limit
    if ends is None:
        return length
    found = torch.isin(row, torch.as_tensor(ends, device=row.device)).nonzero().flatten().tolist()
    return min(length, found[0] + 1) if found else length
