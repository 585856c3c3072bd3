"""Answer requests: encode the visuals, build prompts, ask the language model, and note the facts of each answer."""

from collections.abc import Sequence

import torch
from loguru import logger

from lmms_eval_stgridpool.answers.generation import PreparedQuestion, generate
from lmms_eval_stgridpool.answers.generation_settings import GenerationSettings
from lmms_eval_stgridpool.answers.prompt_length import check_length
from lmms_eval_stgridpool.answers.scoring import score
from lmms_eval_stgridpool.answers.shared_prefix import SharedPrefix
from lmms_eval_stgridpool.kept.record import RankSums
from lmms_eval_stgridpool.kept.sample_facts import Answer, Answered, SampleFacts
from lmms_eval_stgridpool.questions.requests import Request, Tasks, Visuals, name_questions, video_key
from lmms_eval_stgridpool.run.unanswered import UNANSWERED, Unanswered
from lmms_eval_stgridpool.videos.encoding import EncodedMedia, Media, MediaEncoder
from lmms_eval_stgridpool.videos.last_made import LastMade
from stgridpool import Compressor
from stgridpool.finite import NonFiniteError
from stgridpool.model import Prompt
from stgridpool.timing import StageTimer


class Answerer:
    """Answers requests one batch after the other; consecutive questions about one video share encoding and prefix.

    Args:
        tasks: What the tasks know about their questions.
        encoder: Encodes and compresses visuals.
        shared: The prefix that questions about one video share.
        sums: Counts the videos that are encoded, the answers, and the failures.
    """

    def __init__(self, tasks: Tasks, encoder: MediaEncoder, shared: SharedPrefix, sums: RankSums) -> None:
        self._tasks, self._sums = tasks, sums
        self.encoder, self.shared = encoder, shared
        self._encoded: LastMade[EncodedMedia] = LastMade()
        self._media: LastMade[Media] = LastMade()

    def answer(self, requests: Sequence[Request], no_answer: Answer) -> list[Answered]:
        """Answer one request, or several of kind "generate_until" about the same visuals.

        Depending on the kind of request, an answer is a text, a pair (loss, is greedy) or a list of texts. A question
        that cannot be answered gets `no_answer`, and its facts say why. The questions of a batch share its time evenly.

        Args:
            requests: The requests.
            no_answer: Replaces a missing answer.

        Returns:
            The answers and their facts, one per request.
        """
        facts = [SampleFacts() for _ in requests]
        timer = StageTimer(self.encoder.device)
        answers: Sequence[Answer | Unanswered]
        try:
            answers = self._answer(requests, facts, timer)
        except UNANSWERED as error:
            answers = [error] * len(requests)
        for failure in dict.fromkeys(answer for answer in answers if isinstance(answer, UNANSWERED)):
            failed = [request for request, answer in zip(requests, answers, strict=True) if answer is failure]
            logger.error(f"{name_questions(failed)} is not answered: {failure}")
            self._sums.add_failures(failure, len(failed))
        seconds = {stage: spent / len(requests) for stage, spent in timer.seconds().items()}
        results = []
        for answer, own_facts in zip(answers, facts, strict=True):
            own_facts.seconds = dict(seconds)
            own_facts.failure = str(answer) if isinstance(answer, UNANSWERED) else None
            self._sums.add_answer(own_facts)
            results.append(Answered(no_answer if isinstance(answer, UNANSWERED) else answer, own_facts))
        return results

    def forget(self) -> None:
        """Free the last video: its features, its tokens and its prefix."""
        self._encoded.forget()
        self._media.forget()
        self.shared.forget()

    def _answer(
        self, requests: Sequence[Request], facts: Sequence[SampleFacts], timer: StageTimer
    ) -> Sequence[Answer | Unanswered]:
        """Answer requests about the same visuals; return the error for an answer whose logits are not finite."""
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

    def _generate(
        self,
        contexts: Sequence[str],
        visuals: Visuals,
        settings: Sequence[GenerationSettings],
        facts: Sequence[SampleFacts],
        timer: StageTimer,
    ) -> list[str | NonFiniteError]:
        questions = []
        for context, own_settings, own_facts in zip(contexts, settings, facts, strict=True):
            prompt, media = self._prompt(context, visuals, own_facts, timer)
            questions.append(PreparedQuestion(prompt, media, own_settings))
        answers = generate(self.encoder.model, self.shared, questions, timer)
        for question, own_facts, answer in zip(questions, facts, answers, strict=True):
            own_facts.answered_together = answer.together
            if answer.error is None:
                own_facts.add_question(len(question.prompt), answer.num_tokens, answer.counts)
        return [answer.error or answer.text for answer in answers]

    def _score(self, request: Request, visuals: Visuals, facts: SampleFacts, timer: StageTimer) -> tuple[float, bool]:
        prompt, media = self._prompt(request.context, visuals, facts, timer, request.argument)
        loss, is_greedy, counts = score(self.encoder.model, self.shared, prompt, media, timer)
        facts.add_question(len(prompt), 0, counts)
        return loss, is_greedy

    def _converse(
        self, request: Request, visuals: Visuals, facts: SampleFacts, timer: StageTimer
    ) -> list[str] | NonFiniteError:
        """Answer in rounds: the task makes each question from the answers so far."""
        settings = GenerationSettings.from_task(request.argument)
        context, notes = request.context, None
        answers: list[str] = []
        while True:
            [answer] = self._generate([context], visuals, [settings], [facts], timer)
            if isinstance(answer, NonFiniteError):
                return answer
            answers.append(answer)
            shown, context, finished, outputs, notes = self._tasks.next_round(
                request,
                previous_output=list(answers),
                round_idx=len(answers),
                previous_round_info=notes,
            )
            answers, visuals = list(outputs), list(shown or [])
            if finished:
                return answers

    def _prompt(
        self, context: str, visuals: Visuals, facts: SampleFacts, timer: StageTimer, answer: str | None = None
    ) -> tuple[Prompt, Media]:
        """Put a question and its visuals into a prompt.

        Raises:
            ValueError: If the prompt is longer than the model allows: it would cut the prompt and lose the question.
        """
        media = self._show(context, visuals, facts, timer)
        model = self.encoder.model
        prompt = model.prompt(context, media.visuals, media.clips, answer)
        check_length(model, prompt)
        return prompt, media

    def _show(self, question: str, visuals: Visuals, facts: SampleFacts, timer: StageTimer) -> Media:
        """Encode and compress visuals, unless the previous question has already done so.

        All questions about a video share its encoding. They also share its compressed tokens, unless the compressor
        looks at the question.
        """
        compressor = self.encoder.model.compressor
        key = video_key(visuals)
        is_new = False

        def encode() -> EncodedMedia:
            nonlocal is_new
            is_new = True
            self._media.forget()
            self.shared.forget()
            with torch.inference_mode():
                return self.encoder.encode(visuals, timer)

        def compress() -> Media:
            self.shared.forget()
            encoded = self._encoded.get(key, encode)
            with torch.inference_mode():
                media = self.encoder.compress(encoded, question, timer)
            if is_new:  # a method that looks at the question compresses the same videos for each one
                self._sums.add_videos(
                    len(media.clips),
                    media.frames,
                    media.visual_tokens,
                    media.newline_tokens,
                    media.cache_hits,
                    media.cache_misses,
                    media.reused_frames,
                )
            return media

        asked = None if key is None else (key, question if compressor.query_aware else None)
        media = self._media.get(asked, compress)
        _note_shown(facts, media, compressor)
        return media


def _note_shown(facts: SampleFacts, media: Media, compressor: Compressor) -> None:
    """Add what a question was shown to its facts."""
    if media.frames:
        facts.compressor = repr(compressor)
    facts.frames += media.frames
    facts.frames_sha256 = media.frames_sha256 or facts.frames_sha256
    facts.damaged_videos |= media.damaged
    facts.visual_tokens += media.visual_tokens
    facts.newline_tokens += media.newline_tokens
