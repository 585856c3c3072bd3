"""Answers of the language model: free text, and the loss of a given continuation."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from transformers import StoppingCriteria

from llava.mm_utils import KeywordsStoppingCriteria
from lmms_eval_stgridpool.media import Media
from lmms_eval_stgridpool.sharing import SharedPrefix
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
        self, ids: torch.Tensor, media: Media, settings: GenerationSettings, timer: StageTimer
    ) -> tuple[str, int]:
        """Continue a prompt; stages "prefill" (up to the first token) and "generate".

        Args:
            ids: (L,) token ids with placeholders.
            media: What the placeholders stand for.
            settings: How to generate.
            timer: Gets the stages.

        Returns:
            The answer, and the number of tokens generated.

        Raises:
            ValueError: If the prompt is longer than the checkpoint's longest.
        """
        self._check_length(ids, media)
        input_ids = ids[None].to(self.device)
        with ExitStack() as stages, torch.inference_mode():
            stages.enter_context(timer.stage("prefill"))
            criteria = [
                _FirstToken(stages, timer),
                KeywordsStoppingCriteria([self.stop_text], self.tokenizer, input_ids),
                _Until(settings.until, self.tokenizer),
            ]
            options = {
                "pad_token_id": self.tokenizer.pad_token_id,
                "stopping_criteria": criteria,
                "use_cache": True,
                **settings.for_model(),
            }
            shared = self.shared.open(ids, media)
            if shared is None:
                output = self.model.generate(input_ids, **_visual_arguments(media), **options)
            else:
                session, suffix = shared
                output = session.generate([suffix], **options)
        text = self.tokenizer.decode(output[0], skip_special_tokens=True)
        return cut(text, settings.until), int(output.shape[1])

    def score(
        self, ids: torch.Tensor, num_context: int, num_closing: int, media: Media, timer: StageTimer
    ) -> tuple[float, bool]:
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
            Loss in nats per token, at least 0, and the comparison, which leaves out the closing.

        Raises:
            ValueError: If the prompt is longer than the checkpoint's longest.
        """
        self._check_length(ids, media)
        scored = ids[num_context:].to(self.device)
        with timer.stage("prefill"), torch.inference_mode():
            logits = self._last_logits(ids, media, len(scored) + 1)
            logits = logits[:-1].float()  # (number scored, vocabulary): each predicts the id after it
            loss = F.cross_entropy(logits, scored.to(logits.device))
        end = len(scored) - num_closing
        greedy = logits[:end].argmax(dim=-1).cpu()
        return float(loss), bool((greedy == scored[:end].cpu()).all())

    def _last_logits(self, ids: torch.Tensor, media: Media, count: int) -> torch.Tensor:
        """Logits (count, vocabulary) at the last positions of a prompt."""
        shared = self.shared.open(ids, media)
        if shared is not None:
            session, suffix = shared
            return session.logits(suffix, num_last=count)
        prompt = ids[None].to(self.device)
        return self.model(input_ids=prompt, use_cache=False, logits_to_keep=count, **_visual_arguments(media)).logits[0]

    def _check_length(self, ids: torch.Tensor, media: Media) -> None:
        """The model would cut a longer prompt, and with it the question: its answer would say nothing."""
        longest, length = self.model.config.tokenizer_model_max_length, media.prompt_length(len(ids))
        if longest is not None and length > longest:
            raise ValueError(
                f"a prompt of {length} tokens, {media.visual_tokens} of them visual, is longer than the checkpoint's "
                f"tokenizer_model_max_length = {longest}: lower max_frames_num or choose a stronger compressor"
            )


def cut(text: str, until: Iterable[str]) -> str:
    """The answer without white space around it, up to the first of the texts `until`."""
    text = text.strip()
    ends = [position for word in until if (position := text.find(word)) >= 0]
    return text[: min(ends)].rstrip() if ends else text


def _visual_arguments(media: Media) -> dict[str, Any]:
    if media.inputs is None:
        return {}
    return {
        "images": media.inputs,
        "modalities": list(media.modalities),
        "image_sizes": None if media.image_sizes is None else list(media.image_sizes),
    }


class _FirstToken(StoppingCriteria):
    """Never stops; ends the stage in `stages` after the first token and begins "generate"."""

    def __init__(self, stages: ExitStack, timer: StageTimer) -> None:
        self._stages, self._timer = stages, timer
        self._seen = False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ARG002
        if not self._seen:
            self._seen = True
            self._stages.close()
            self._stages.enter_context(self._timer.stage("generate"))
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class _Until(StoppingCriteria):
    """Stops a sequence whose text holds one of the words; it sees new tokens only."""

    def __init__(self, words: tuple[str, ...], tokenizer: Any) -> None:
        self._words, self._tokenizer = words, tokenizer

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ARG002
        texts = self._tokenizer.batch_decode(input_ids, skip_special_tokens=True) if self._words else [""]
        done = [any(word in text.lstrip() for word in self._words) for text in texts]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device).expand(input_ids.shape[0])
