"""One request answered: visuals encoded, prompt built, model asked, facts of the answer filled in."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch

from lmms_eval_stgridpool.answers.generation import Answerer
from lmms_eval_stgridpool.answers.generation_settings import GenerationSettings
from lmms_eval_stgridpool.kept.record import RankSums, SampleFacts
from lmms_eval_stgridpool.questions.requests import Request, Tasks, video_key
from lmms_eval_stgridpool.videos.encoding import EncodedMedia, LastMade, Media, MediaEncoder
from stgridpool.finite import NonFiniteError
from stgridpool.timing import StageTimer


class RequestAnswerer:
    """Answers requests one after the other; neighbours about the same video share its encoding and its prefix.

    Args:
        tasks: What the tasks know about their questions.
        encoder: Encodes and compresses visuals.
        answerer: Asks the language model.
        sums: Counts the videos that are encoded.
    """

    def __init__(self, tasks: Tasks, encoder: MediaEncoder, answerer: Answerer, sums: RankSums) -> None:
        self._tasks, self._sums = tasks, sums
        self.encoder, self.answerer = encoder, answerer
        self._encoded: LastMade[EncodedMedia] = LastMade()
        self._media: LastMade[Media] = LastMade()

    def answer(self, requests: Sequence[Request], facts: Sequence[SampleFacts], timer: StageTimer) -> list[Any]:
        """Answers in the form that their kind of request wants: text, (loss, is greedy), or a list of texts.

        Args:
            requests: One request, or several of kind "generate_until" about the same visuals.
            facts: Those of each answer, to be filled in.
            timer: Gets the stages of all of them.

        Returns:
            One answer per request; where it comes from features or logits that are not finite, the error instead.

        Raises:
            VideoReadError: If a video cannot be read.
            UnansweredError: If the task shows nothing.
            NonFiniteError: If the loss of a single request comes from features or logits that are not finite.
        """
        request = requests[0]
        visuals = self._tasks.visuals(request)
        if not visuals and not self._tasks.never_shows(request):
            for own_facts in facts:
                own_facts.is_blind = True
        if request.kind == "generate_until":
            contexts = [one.context for one in requests]
            settings = [GenerationSettings.from_task(one.argument) for one in requests]
            return self._generate(contexts, visuals, settings, facts, timer)
        if request.kind == "loglikelihood":
            return [self._score(request, visuals, facts[0], timer)]
        return [self._converse(request, visuals, facts[0], timer)]

    def forget(self) -> None:
        """Free the last video: its features, its tokens and its prefix."""
        self._encoded.forget()
        self._media.forget()
        self.answerer.shared.forget()

    def _show(self, visuals: Sequence[Any], question: str, facts: SampleFacts, timer: StageTimer) -> Media:
        """Encode and compress visuals; what neighbouring questions share is not computed again.

        The encoding is shared by all questions about a video, its compressed tokens by those for which the compressor
        sees the same: all of them, unless it looks at the question.
        """
        compressor = self.encoder.model.compressor
        key = video_key(visuals)

        def encode() -> EncodedMedia:
            self._media.forget()
            self.answerer.shared.forget()
            with torch.inference_mode():
                return self.encoder.encode(visuals, timer)

        def compress() -> Media:
            self.answerer.shared.forget()
            encoded = self._encoded.get(key, encode)
            with torch.inference_mode():
                media = self.encoder.compress(encoded, question, timer)
            self._sums.add_videos(
                len(media.clips),
                media.frames,
                media.visual_tokens,
                media.newline_tokens,
                media.cache_hits,
                media.cache_misses,
            )
            return media

        asked = None if key is None else (key, question if compressor.query_aware else None)
        media = self._media.get(asked, compress)
        if media.frames:
            facts.compressor = repr(compressor)
        facts.frames += media.frames
        facts.damaged_videos |= media.damaged
        facts.visual_tokens += media.visual_tokens
        facts.newline_tokens += media.newline_tokens
        return media

    def _generate(
        self,
        contexts: Sequence[str],
        visuals: Sequence[Any],
        settings: Sequence[GenerationSettings],
        facts: Sequence[SampleFacts],
        timer: StageTimer,
    ) -> list[str | NonFiniteError]:
        model = self.encoder.model
        texts: list[str | NonFiniteError] = []
        asked = []
        for context, own_facts in zip(contexts, facts, strict=True):
            media = self._show(visuals, context, own_facts, timer)
            asked.append((model.prompt(context, media.visuals, media.clips), media))
        for media, group in groupby(asked, key=lambda one: one[1]):
            prompts = [prompt for prompt, _ in group]
            first = len(texts)
            answers = self.answerer.generate(prompts, media, settings[first : first + len(prompts)], timer)
            for prompt, own_facts, answer in zip(prompts, facts[first:], answers, strict=False):
                own_facts.answered_together = answer.together
                if answer.error is None:
                    _count(own_facts, len(prompt), answer.num_tokens)
                    own_facts.add_counts(answer.counts)
                texts.append(answer.error or answer.text)
        return texts

    def _score(
        self, request: Request, visuals: Sequence[Any], facts: SampleFacts, timer: StageTimer
    ) -> tuple[float, bool]:
        media = self._show(visuals, request.context, facts, timer)
        prompt = self.encoder.model.prompt(request.context, media.visuals, media.clips, request.argument)
        loss, is_greedy, counts = self.answerer.score(prompt, media, timer)
        _count(facts, len(prompt), 0)
        facts.add_counts(counts)
        return loss, is_greedy

    def _converse(
        self,
        request: Request,
        visuals: Sequence[Any],
        facts: SampleFacts,
        timer: StageTimer,
    ) -> list[str] | NonFiniteError:
        """Rounds: the task makes each question from the answers so far."""
        settings = GenerationSettings.from_task(request.argument)
        context, notes = request.context, None
        answers: list[str] = []
        while True:
            [answer] = self._generate([context], visuals, [settings], [facts], timer)
            if isinstance(answer, NonFiniteError):
                return answer
            answers.append(answer)
            visuals, context, finished, outputs, notes = self._tasks.next_round(
                request,
                previous_output=list(answers),
                round_idx=len(answers),
                previous_round_info=notes,
            )
            answers, visuals = list(outputs), list(visuals or [])
            if finished:
                return answers


def _count(facts: SampleFacts, num_prompt: int, num_generated: int) -> None:
    """Add the tokens of one question and its answer."""
    facts.input_tokens = (facts.input_tokens or 0) + num_prompt
    facts.output_tokens = (facts.output_tokens or 0) + num_generated
