"""Answers of the language model: free text, and the loss of a given continuation."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from llava.mm_utils import KeywordsStoppingCriteria
from lmms_eval_stgridpool.answers.generation_settings import GenerationSettings
from lmms_eval_stgridpool.answers.shared_prefix import SharedPrefix, count_tokens
from lmms_eval_stgridpool.answers.stopping import FirstToken, Limits, Until, cut
from lmms_eval_stgridpool.videos.encoding import Media
from stgridpool.finite import LANGUAGE_MODEL, LogitsWatch, NonFiniteError, all_finite, fetch, first_failure, flags_of
from stgridpool.model import Prompt, VideoModel, generate, last_logits
from stgridpool.retention import LayerLengths, VisualCounts
from stgridpool.timing import StageTimer


@dataclass(frozen=True)
class Generated:
    """An answer.

    Attributes:
        text: The answer.
        num_tokens: Tokens generated for it.
        error: Why it says nothing; None where everything that it comes from is finite.
        counts: Visual tokens of its prompt; None without a video.
        together: Answers generated as one batch with it, itself included.
    """

    text: str
    num_tokens: int
    error: NonFiniteError | None = None
    counts: VisualCounts | None = None
    together: int = 1


@dataclass(frozen=True, eq=False)
class Answerer:
    """Asks the language model.

    Attributes:
        model: The model.
        shared: Prefixes that questions about one video share.
    """

    model: VideoModel
    shared: SharedPrefix

    def generate(
        self,
        prompts: Sequence[Prompt],
        media: Media,
        settings: Sequence[GenerationSettings],
        timer: StageTimer,
    ) -> list[Generated]:
        """Continue several prompts about the same visuals; stages "prefill" (up to the first token) and "generate".

        Greedy answers that share a prefix are generated as one batch, each with its own limits. Others, and prompts
        that share nothing, are generated one by one. Prompts with another text before the visuals have another prefix;
        one prefix after the other is in memory. An answer from features or logits that are not finite has an error, and
        those of the same batch whose own logits are finite have none.

        Args:
            prompts: The prompts.
            media: What they show.
            settings: How to generate each answer.
            timer: Gets the stages.

        Raises:
            RuntimeError: If another number of visual tokens went through the model than the compressors planned.
            ValueError: If a prompt is longer than the checkpoint's longest.
        """
        groups: dict[Any, list[int]] = {}
        for index, prompt in enumerate(prompts):
            self._check_length(prompt)
            prefix = self.shared.ids(prompt)
            groups.setdefault(index if prefix is None else tuple(prefix.tolist()), []).append(index)
        answers: dict[int, Generated] = {}
        for group in groups.values():
            own_prompts, own_settings = [prompts[index] for index in group], [settings[index] for index in group]
            answers |= zip(group, self._generate_group(own_prompts, media, own_settings, timer), strict=True)
        return [answers[index] for index in range(len(prompts))]

    def _generate_group(
        self,
        prompts: Sequence[Prompt],
        media: Media,
        settings: Sequence[GenerationSettings],
        timer: StageTimer,
    ) -> list[Generated]:
        """Continue prompts with one prefix, or a single prompt that shares none."""
        with torch.inference_mode(), timer.stage("prefill"):
            opened = [one for one in (self.shared.open(prompt, media) for prompt in prompts) if one is not None]
        if not opened:
            [prompt] = prompts
            with LayerLengths(self.model.decoder.layers).of_first_forward() as entering:
                [answer] = self._generate(prompts, settings, media, timer, partial(generate, self.model, prompt))
            return [replace(answer, counts=self._count(prompt, entering))]
        session, counts = opened[0].session, opened[0].counts
        suffixes = [one.suffix for one in opened]
        if all(one.do_sample is False and one.num_beams == 1 for one in settings):
            found = self._generate(prompts, settings, media, timer, partial(session.generate, suffixes))
            return [replace(answer, counts=counts, together=len(found)) for answer in found]
        answers = []
        for prompt, one, suffix in zip(prompts, settings, suffixes, strict=True):
            [answer] = self._generate([prompt], [one], media, timer, partial(session.generate, [suffix]))
            answers.append(replace(answer, counts=counts))
        return answers

    def _generate(
        self,
        prompts: Sequence[Prompt],
        settings: Sequence[GenerationSettings],
        media: Media,
        timer: StageTimer,
        proceed: Callable[..., torch.Tensor],
    ) -> list[Generated]:
        """Answers to prompts with the same settings but for the length and the end of each."""
        tokenizer, stop = self.model.tokenizer, [self.model.stop_text]
        criteria = [
            [KeywordsStoppingCriteria(stop, tokenizer, prompt.ids[None]), Until(one.until, tokenizer)]
            for prompt, one in zip(prompts, settings, strict=True)
        ]
        limits = Limits(criteria, [one.max_new_tokens for one in settings])
        longest = max(one.max_new_tokens for one in settings)
        watch = LogitsWatch(self.model.language_model)
        with ExitStack() as stages, torch.inference_mode():
            stages.enter_context(timer.stage("prefill"))
            output = proceed(
                watch=watch,
                pad_token_id=tokenizer.pad_token_id,
                stopping_criteria=[FirstToken(stages, timer), limits],
                use_cache=True,
                **settings[0].for_model() | {"max_new_tokens": longest},
            )
        rows, steps, stages_before = fetch(output, watch.flags(), flags_of(media.checks, output.device))
        of_media, of_logits = first_failure(media.checks, stages_before), watch.error
        is_searched = settings[0].num_beams > 1  # then every step of every beam counts
        answers = []
        of_answers = steps.view(len(steps), len(rows), -1).unbind(1)  # (steps, beams) of each
        for row, is_finite, length, one in zip(rows, of_answers, limits.lengths, settings, strict=True):
            tokens = row[: self._length(row, length)]
            text = cut(tokenizer.decode(tokens, skip_special_tokens=True), one.until)
            is_lost = not is_finite[: None if is_searched else len(tokens)].all()
            answers.append(Generated(text, len(tokens), of_media or (of_logits if is_lost else None)))
        return answers

    def _length(self, row: torch.Tensor, limit: int | None) -> int:
        """Tokens of an answer, the one that ends it included; what follows in a batch is padding."""
        ends = self.model.language_model.generation_config.eos_token_id
        length = len(row) if limit is None else limit
        if ends is None:
            return length
        found = torch.isin(row, torch.as_tensor(ends, device=row.device)).nonzero().flatten().tolist()
        return min(length, found[0] + 1) if found else length

    def score(self, prompt: Prompt, media: Media, timer: StageTimer) -> tuple[float, bool, VisualCounts | None]:
        """Mean loss of the answer that a prompt holds, and whether greedy decoding would give it; stage "prefill".

        lmms-eval's multiple-choice tasks take the smallest number as the answer, hence a loss and no log-likelihood.
        The loss counts the closing of the turn as well, as that of the original clients does.

        Args:
            prompt: A prompt with an answer.
            media: What it shows.
            timer: Gets the stage.

        Returns:
            Loss in nats per token, at least 0; the comparison, which leaves out the closing; and the visual tokens of
            the prompt, None without a video.

        Raises:
            ValueError: If the prompt is longer than the checkpoint's longest.
            NonFiniteError: If the loss comes from features or logits that are not finite.
        """
        self._check_length(prompt)
        scored = prompt.ids[len(prompt.ids) - prompt.num_answer :]
        end = len(scored) - prompt.num_closing
        with timer.stage("prefill"), torch.inference_mode():
            logits, counts = self._last_logits(prompt, media, len(scored) + 1)
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

    def _last_logits(self, prompt: Prompt, media: Media, count: int) -> tuple[torch.Tensor, VisualCounts | None]:
        """Logits (count, vocabulary) at the last positions of a prompt, and its visual tokens."""
        opened = self.shared.open(prompt, media)
        if opened is not None:
            return opened.session.logits(opened.suffix, num_last=count), opened.counts
        with LayerLengths(self.model.decoder.layers).of_first_forward() as entering:
            logits = last_logits(self.model, prompt, count)
        return logits, self._count(prompt, entering)

    def _count(self, prompt: Prompt, entering: Sequence[int]) -> VisualCounts | None:
        """Visual tokens of a prompt that shares nothing; each layer caches what enters it."""
        if not prompt.videos:
            return None
        videos = [video for _, video in prompt.videos]
        num_text = len(prompt) - sum(video.num_tokens + video.num_newlines for video in videos)
        return count_tokens(self.model, videos, num_text, entering, entering)

    def _check_length(self, prompt: Prompt) -> None:
        """The model would cut a longer prompt, and with it the question: its answer would say nothing."""
        longest, length = self.model.longest, len(prompt)
        if longest is not None and length > longest:
            visual = sum(video.num_tokens for _, video in prompt.videos)
            raise ValueError(
                f"a prompt of {length} tokens, {visual} of them visual, is longer than the checkpoint's "
                f"tokenizer_model_max_length = {longest}: lower max_frames_num or choose a stronger compressor"
            )
