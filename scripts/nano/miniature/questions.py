"""Questions about the clips of `world`, their options, and the text around them.

The answer is equally likely to be any of the options, whatever the question says, so a text alone is worth nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .world import COLOURS, CORNERS, COUNTS, DIGITS, DIRECTIONS, SHAPES, Clips

LETTERS = ("A", "B", "C", "D")
# The prompt of lmms-eval's Video-MME task with the closing sentence of custom_tasks/videomme_local.yaml.
INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)
CLOSING = "Answer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class QuestionType:
    """A type of question that can be asked about every clip.

    Attributes:
        name: What it is called in tables.
        task_type: Its name in Video-MME, whose scoring knows only its own twelve.
        text: The question.
        words: What may be the answer.
        answer: Position (B,) of the right word for each clip.
        shown: Options besides the answer (B, 3) that are not left to chance, or None.
    """

    name: str
    task_type: str
    text: str
    words: tuple[str, ...]
    answer: Callable[[Clips], Tensor]
    shown: Callable[[Clips], Tensor] | None = None


COLOUR_WORDS = tuple(COLOURS)
QUESTION_TYPES = (
    QuestionType(
        "colour",
        "Attribute Perception",
        "What colour is the moving shape?",
        COLOUR_WORDS,
        lambda clips: clips.mover[:, 0],
    ),
    QuestionType(
        "shape", "Object Recognition", "What shape is the moving one?", SHAPES, lambda clips: clips.mover[:, 1]
    ),
    QuestionType(
        "position", "Spatial Perception", "In which corner is the lamp?", CORNERS, lambda clips: clips.lamp[:, 0].long()
    ),
    QuestionType(
        "direction",
        "Action Recognition",
        "Which way does the shape move?",
        tuple(DIRECTIONS),
        lambda clips: clips.mover[:, 2],
    ),
    QuestionType(
        "first",
        "Temporal Perception",
        "What colour is first on the card?",
        COLOUR_WORDS,
        lambda clips: clips.card_colours[:, 0],
        lambda clips: clips.card_colours[:, 1:],
    ),
    QuestionType(
        "last",
        "Temporal Reasoning",
        "What colour is last on the card?",
        COLOUR_WORDS,
        lambda clips: clips.card_colours[:, -1],
        lambda clips: clips.card_colours[:, :-1],
    ),
    QuestionType(
        "count", "Counting Problem", "How many times does the lamp light up?", COUNTS, lambda clips: clips.count - 1
    ),
    QuestionType("needle", "OCR Problems", "Which digit is shown?", DIGITS, lambda clips: clips.needle[:, 0]),
)


def draw_options(kind: QuestionType, clips: Clips, letters: Tensor, generator: torch.Generator) -> Tensor:
    """Options (B, 4) as positions in `kind.words`, the right one at `letters` (B,), the others in random order."""
    answer = kind.answer(clips)
    chances = torch.rand(len(clips), len(kind.words), generator=generator)
    if kind.shown is not None:
        chances = chances.scatter_add(1, kind.shown(clips), torch.ones(len(clips), 3))
    chances = chances.scatter(1, answer[:, None], -1.0)
    others = chances.topk(len(LETTERS) - 1).indices
    others = others.gather(1, torch.rand(others.shape, generator=generator).argsort(dim=1))
    place = torch.arange(len(LETTERS))[None]
    shifted = place - (place > letters[:, None]).long()  # the distractor at each place
    options = others.gather(1, shifted.clamp(max=len(LETTERS) - 2))
    return options.scatter(1, letters[:, None], answer[:, None])


def option_lines(words: list[str]) -> list[str]:
    """Return the lines of the options, such as "A. red", for four words."""
    return [f"{letter}. {word}" for letter, word in zip(LETTERS, words, strict=True)]


def ask(question: str, words: list[str], instruction: str = INSTRUCTION) -> str:
    """Build the text that the task passes to the model for one question, with the instruction if there is one."""
    lines = [instruction] if instruction else []
    return "\n".join([*lines, question, *option_lines(words), "", CLOSING])
