"""Answers of the language model: free text, and the loss of a given continuation."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from llava.mm_utils import KeywordsStoppingCriteria
from lmms_eval_stgridpool.counting import count_tokens
from lmms_eval_stgridpool.media import Media
from lmms_eval_stgridpool.sharing import SharedPrefix
from lmms_eval_stgridpool.stopping import FirstToken, Limits, Until, cut
from stgridpool.retention import LayerLengths, VisualCounts
from stgridpool.stage_timer import StageTimer

DEFAULT_MAX_NEW_TOKENS = 1024


@dataclass(frozen=True)
class GenerationSettings:
    """How an answer is generated.

    Attributes:
        max_new_tokens: Most tokens of the answer.
        do_sample: Sample instead of taking the best token.
        temperature: Of sampling, above 0.
        top_p: Share of the probability that sampling draws from, 0 to 1; passed on as the stock models pass it. Of a
            checkpoint's other sampling settings, such as top_k, sampling keeps what they say.
        num_beams: Beams searched.
        until: Texts before which the answer ends.
    """

    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float | None = None
    num_beams: int = 1
    until: tuple[str, ...] = ()

    @classmethod
    def from_task(cls, gen_kwargs: Mapping[str, Any]) -> "GenerationSettings":
        """Read a task's ``generation_kwargs``, which are left as they are.

        A temperature of 0, or none without ``do_sample``, is greedy. Keys that are not generation settings here are
        ignored, as lmms-eval's tasks address several models with them.
        """
        temperature = gen_kwargs.get("temperature")
        do_sample = gen_kwargs.get("do_sample")
        if do_sample is None:
            do_sample = temperature is not None and temperature > 0
        until = gen_kwargs.get("until") or ()
        return cls(
            max_new_tokens=int(gen_kwargs.get("max_new_tokens") or DEFAULT_MAX_NEW_TOKENS),
            do_sample=bool(do_sample) and temperature != 0,
            temperature=1.0 if temperature is None else float(temperature),
            top_p=gen_kwargs.get("top_p"),
            num_beams=int(gen_kwargs.get("num_beams") or 1),
            until=tuple(text for text in ([until] if isinstance(until, str) else until) if text),
        )

    def for_model(self) -> dict[str, Any]:
        """Arguments of the model's ``generate``; greedy ones undo the checkpoint's own sampling settings."""
        if self.do_sample:
            sampling: dict[str, Any] = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p}
        else:
            sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return sampling | {"num_beams": self.num_beams, "max_new_tokens": self.max_new_tokens}


@dataclass(frozen=True)
class Generated:
    """An answer.

    Attributes:
        text: The answer.
        num_tokens: Tokens generated for it.
        counts: Visual tokens of its prompt; None without a video.
        together: Answers generated as one batch with it, itself included.
    """

    text: str
    num_tokens: int
    counts: VisualCounts | None
    together: int = 1


@dataclass(frozen=True, eq=False)
class Answerer:
    """Asks the language model.

    Attributes:
        model: The model of ``llava``.
        tokenizer: Its tokenizer.
        device: Where token ids go.
        stop_text: Text with which the prompt template closes an answer.
        shared: Prefixes that questions about one video share.
    """

    model: Any
    tokenizer: Any
    device: torch.device
    stop_text: str
    shared: SharedPrefix

    def generate(
        self,
        prompts: Sequence[torch.Tensor],
        media: Media,
        settings: Sequence[GenerationSettings],
        timer: StageTimer,
    ) -> list[Generated]:
        """Continue several prompts about the same visuals; stages "prefill" (up to the first token) and "generate".

        Greedy answers that share a prefix are generated as one batch, each with its own limits. Others, and prompts
        that share nothing, are generated one by one. Prompts with another text before the visuals have another prefix;
        one prefix after the other is in memory.

        Args:
            prompts: (L_i,) token ids with placeholders.
            media: What the placeholders stand for.
            settings: How to generate each answer.
            timer: Gets the stages.

        Raises:
            RuntimeError: If another number of visual tokens went through the model than the compressors planned.
            ValueError: If a prompt is longer than the checkpoint's longest.
        """
        for ids in prompts:
            self._check_length(ids, media)
        groups: dict[Any, list[int]] = {}
        for index, ids in enumerate(prompts):
            prefix = self.shared.prefix(ids, media)
            groups.setdefault(index if prefix is None else tuple(prefix.tolist()), []).append(index)
        answers: dict[int, Generated] = {}
        for group in groups.values():
            own_prompts, own_settings = [prompts[index] for index in group], [settings[index] for index in group]
            answers |= zip(group, self._generate_group(own_prompts, media, own_settings, timer), strict=True)
        return [answers[index] for index in range(len(prompts))]

    def _generate_group(
        self,
        prompts: Sequence[torch.Tensor],
        media: Media,
        settings: Sequence[GenerationSettings],
        timer: StageTimer,
    ) -> list[Generated]:
        """Continue prompts with one prefix, or a single prompt that shares none."""
        with torch.inference_mode(), timer.stage("prefill"):
            opened = [one for one in (self.shared.open(ids, media) for ids in prompts) if one is not None]
        if not opened:
            [ids] = prompts
            generate = partial(self.model.generate, ids[None].to(self.device), **_visual_arguments(media))
            with LayerLengths(self.model).of_first_forward() as entering:
                [(text, length)] = self._generate(prompts, settings, timer, generate)
            return [Generated(text, length, self._count(ids, media, entering))]
        session, counts = opened[0].session, opened[0].counts
        suffixes = [one.suffix for one in opened]
        if all(one.do_sample is False and one.num_beams == 1 for one in settings):
            texts = self._generate(prompts, settings, timer, partial(session.generate, suffixes))
            return [Generated(text, length, counts, len(texts)) for text, length in texts]
        answers = []
        for ids, one, suffix in zip(prompts, settings, suffixes, strict=True):
            [(text, length)] = self._generate([ids], [one], timer, partial(session.generate, [suffix]))
            answers.append(Generated(text, length, counts))
        return answers

    def _generate(
        self,
        prompts: Sequence[torch.Tensor],
        settings: Sequence[GenerationSettings],
        timer: StageTimer,
        generate: Callable[..., torch.Tensor],
    ) -> list[tuple[str, int]]:
        """Answers to prompts with the same settings but for the length and the end of each."""
        criteria = [
            [KeywordsStoppingCriteria([self.stop_text], self.tokenizer, ids[None]), Until(one.until, self.tokenizer)]
            for ids, one in zip(prompts, settings, strict=True)
        ]
        limits = Limits(criteria, [one.max_new_tokens for one in settings])
        longest = max(one.max_new_tokens for one in settings)
        with ExitStack() as stages, torch.inference_mode():
            stages.enter_context(timer.stage("prefill"))
            output = generate(
                pad_token_id=self.tokenizer.pad_token_id,
                stopping_criteria=[FirstToken(stages, timer), limits],
                use_cache=True,
                **settings[0].for_model() | {"max_new_tokens": longest},
            )
        answers = []
        for row, length, one in zip(output.cpu(), limits.lengths, settings, strict=True):
            tokens = row[: self._length(row, length)]
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            answers.append((cut(text, one.until), len(tokens)))
        return answers

    def _length(self, row: torch.Tensor, limit: int | None) -> int:
        """Tokens of an answer, the one that ends it included; what follows in a batch is padding."""
        ends = self.model.generation_config.eos_token_id
        length = len(row) if limit is None else limit
        if ends is None:
            return length
        found = torch.isin(row, torch.as_tensor(ends, device=row.device)).nonzero().flatten().tolist()
        return min(length, found[0] + 1) if found else length

    def score(
        self, ids: torch.Tensor, num_context: int, num_closing: int, media: Media, timer: StageTimer
    ) -> tuple[float, bool, VisualCounts | None]:
        """Mean loss of a continuation, and whether greedy decoding would give it; stage "prefill".

        lmms-eval's multiple-choice tasks take the smallest number as the answer, hence a loss and no log-likelihood.
        The loss counts the closing of the turn as well, as that of the original clients does.

        Args:
            ids: (L,) token ids of the context, the continuation and the closing of the turn.
            num_context: Ids of the context.
            num_closing: Ids of the closing.
            media: What the placeholders stand for.
            timer: Gets the stage.

        Returns:
            Loss in nats per token, at least 0; the comparison, which leaves out the closing; and the visual tokens of
            the prompt, None without a video.

        Raises:
            ValueError: If the prompt is longer than the checkpoint's longest.
        """
        self._check_length(ids, media)
        scored = ids[num_context:].to(self.device)
        with timer.stage("prefill"), torch.inference_mode():
            logits, counts = self._last_logits(ids, media, len(scored) + 1)
            logits = logits[:-1].float()  # (number scored, vocabulary): each predicts the id after it
            loss = F.cross_entropy(logits, scored.to(logits.device))
        end = len(scored) - num_closing
        greedy = logits[:end].argmax(dim=-1).cpu()
        return float(loss), bool((greedy == scored[:end].cpu()).all()), counts

    def _last_logits(self, ids: torch.Tensor, media: Media, count: int) -> tuple[torch.Tensor, VisualCounts | None]:
        """Logits (count, vocabulary) at the last positions of a prompt, and its visual tokens."""
        opened = self.shared.open(ids, media)
        if opened is not None:
            return opened.session.logits(opened.suffix, num_last=count), opened.counts
        prompt = ids[None].to(self.device)
        with LayerLengths(self.model).of_first_forward() as entering:
            output = self.model(input_ids=prompt, use_cache=False, logits_to_keep=count, **_visual_arguments(media))
        return output.logits[0], self._count(ids, media, entering)

    def _count(self, ids: torch.Tensor, media: Media, entering: Sequence[int]) -> VisualCounts | None:
        """Visual tokens of a prompt that shares nothing; each layer caches what enters it."""
        if not media.clips:
            return None
        return count_tokens(self.model, media, len(ids) - len(media.clips), entering, entering)

    def _check_length(self, ids: torch.Tensor, media: Media) -> None:
        """The model would cut a longer prompt, and with it the question: its answer would say nothing."""
        longest, length = self.model.config.tokenizer_model_max_length, media.prompt_length(len(ids))
        if longest is not None and length > longest:
            raise ValueError(
                f"a prompt of {length} tokens, {media.visual_tokens} of them visual, is longer than the checkpoint's "
                f"tokenizer_model_max_length = {longest}: lower max_frames_num or choose a stronger compressor"
            )


def _visual_arguments(media: Media) -> dict[str, Any]:
    if media.inputs is None:
        return {}
    return {
        "images": media.inputs,
        "modalities": list(media.modalities),
        "image_sizes": None if media.image_sizes is None else list(media.image_sizes),
    }
