"""Questions of a user about one video, answered with one compressor or several."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lmms_eval_stgridpool.answers.generation import Generated, PreparedQuestion, generate
from lmms_eval_stgridpool.answers.generation_settings import GenerationSettings
from lmms_eval_stgridpool.answers.prompt_length import check_length
from lmms_eval_stgridpool.answers.shared_prefix import SharedPrefix
from lmms_eval_stgridpool.videos.encoding import EncodedMedia, Media, MediaEncoder
from stgridpool import Compressor
from stgridpool.compressor import Step, early_steps
from stgridpool.retention import fractions
from stgridpool.timing import StageTimer


@dataclass(frozen=True)
class Reply:
    """The answers with one compressor.

    Attributes:
        name: Name of the compressor, as the user gave it.
        compressor: The compressor with all its options.
        answers: An answer to each question.
        frames: Number of frames.
        visual_tokens: Visual tokens that entered the language model for each question.
        newline_tokens: Newline tokens beside them.
        retention: Fractions kept by each definition of `stgridpool.retention`, as the mean over the questions.
        shares_prefix: Whether the questions shared the prefilled video.
        seconds: Seconds by stage, for all questions; reading and encoding stand in `Replies`.
    """

    name: str
    compressor: str
    answers: tuple[str, ...]
    frames: int
    visual_tokens: int
    newline_tokens: int
    retention: dict[str, float]
    shares_prefix: bool
    seconds: dict[str, float]


@dataclass(frozen=True)
class Replies:
    """The answers with all compressors.

    Attributes:
        questions: The questions.
        replies: One for each compressor.
        seconds: Seconds by stage of reading and encoding the video, once for all compressors that allow it.
    """

    questions: tuple[str, ...]
    replies: tuple[Reply, ...]
    seconds: dict[str, float]


def ask(
    encoder: MediaEncoder,
    video: Path,
    questions: Sequence[str],
    compressors: Mapping[str, Compressor],
    max_new_tokens: int = 128,
) -> Replies:
    """Answer questions about a video; it is read and encoded once, unless a compressor changes that.

    Args:
        encoder: Encodes and compresses videos.
        video: The file, or a folder of pictures.
        questions: At least one.
        compressors: By name.
        max_new_tokens: Longest answer, in tokens.

    Raises:
        VideoReadError: If the video cannot be read.
        ValueError: If the model does not offer what a compressor needs, or a prompt is too long for it.
        NonFiniteError: If features or logits are NaN or infinite.
    """
    timer, encoded = StageTimer(encoder.device), dict[tuple[Step, ...], EncodedMedia]()
    for method in compressors.values():
        encoder.model.compressor = method  # refuses what the model does not offer, before anything is encoded
    replies = []
    for name, method in compressors.items():
        encoder.model.compressor = method
        steps = early_steps(method)
        if steps not in encoded:
            encoder.loader.ask([one for one in compressors.values() if early_steps(one) == steps], steps)
            encoder.loader.expect([video])
            with torch.inference_mode():
                encoded[steps] = encoder.encode([str(video)], timer)
        replies.append(_reply(encoder, name, method, encoded[steps], questions, max_new_tokens))
    return Replies(tuple(questions), tuple(replies), timer.seconds())


def _reply(
    encoder: MediaEncoder,
    name: str,
    method: Compressor,
    encoded: EncodedMedia,
    questions: Sequence[str],
    max_new_tokens: int,
) -> Reply:
    model, timer = encoder.model, StageTimer(encoder.device)
    shared, settings = SharedPrefix(model, not method.query_aware), GenerationSettings(max_new_tokens)
    prepared = []
    for question, media in zip(questions, _media(encoder, method, encoded, questions, timer), strict=True):
        prompt = model.prompt(question, media.visuals, media.clips)
        check_length(model, prompt)
        prepared.append(PreparedQuestion(prompt, media, settings))
    found = generate(model, shared, prepared, timer)
    for answer in found:
        if answer.error is not None:
            raise answer.error
    media = prepared[0].media
    return Reply(
        name=name,
        compressor=repr(model.compressor),
        answers=tuple(answer.text.strip() for answer in found),
        frames=media.frames,
        visual_tokens=media.visual_tokens,
        newline_tokens=media.newline_tokens,
        retention=_mean_retention(found),
        shares_prefix=not method.query_aware,
        seconds=timer.seconds(),
    )


def _media(
    encoder: MediaEncoder, method: Compressor, encoded: EncodedMedia, questions: Sequence[str], timer: StageTimer
) -> Iterator[Media]:
    """Yield the compressed video for each question; all share one, unless the compressor looks at the question."""
    media: Media | None = None
    for question in questions:
        if media is None or method.query_aware:
            with torch.inference_mode():
                media = encoder.compress(encoded, question, timer)
        yield media


def _mean_retention(found: Sequence[Generated]) -> dict[str, float]:
    all_counts = [answer.counts for answer in found if answer.counts is not None]
    shares = [fractions(counts.kept(), counts.full, counts.full_newlines) for counts in all_counts]
    return {name: sum(share[name] for share in shares) / len(shares) for name in (shares[0] if shares else ())}
