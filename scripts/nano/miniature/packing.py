"""Many questions about one video in a single pass.

The video and everything before the question form a shared prefix, followed by the questions of all types. Each question
sees the prefix and itself, and counts its positions from the prefix on, so it is answered exactly as if it were alone.

Letters: B clips, Q tokens of all questions together, V tokens of a video, L tokens in all.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llava.constants import IMAGE_TOKEN_INDEX
from llava.mm_utils import tokenizer_image_token
from llava.model.builder import LlavaQwenForCausalLM

from .attention import Blocks
from .checkpoint import prompt
from .questions import INSTRUCTION, LETTERS, QUESTION_TYPES, QuestionType, ask, draw_options
from .world import Clips


@dataclass(frozen=True, eq=False)
class QuestionForm:
    """One type of question as token ids, with gaps for the options.

    Attributes:
        kind: The type.
        ids: (n,) the question, its options, the closing and the letter that answers it; gaps hold any option.
        end: Place of the question mark among them.
        gaps: Places of the four options' words.
        word_ids: Token of each of the type's words.
    """

    kind: QuestionType
    ids: Tensor
    end: int
    gaps: Tensor
    word_ids: Tensor


@dataclass(frozen=True, eq=False)
class Frame:
    """The prompt around the video, and the lengths of the questions after it.

    Attributes:
        before: (n,) ids before the video.
        shared: (m,) ids between the video and the questions.
        lengths: Tokens of each question.
    """

    before: Tensor
    shared: Tensor
    lengths: tuple[int, ...]

    def positions(self, num_visual: int) -> Tensor:
        """(1, L) the position of each token, with `num_visual` tokens of video."""
        prefix = len(self.before) + num_visual + len(self.shared)
        tails = [torch.arange(prefix, prefix + length) for length in self.lengths]
        return torch.cat([torch.arange(prefix), *tails])[None]


@dataclass(frozen=True, eq=False)
class PackedForm:
    """The prompts of all types of questions, laid one after the other."""

    frame: Frame
    questions: tuple[QuestionForm, ...]


@dataclass(frozen=True, eq=False)
class PackedQuestions:
    """Questions about B clips, and what is to be said where.

    Attributes:
        ids: (B, Q) ids of the questions.
        places: (K,) places among the Q where something is to be said.
        targets: (B, K) what: the answer's word at the question mark, yes or no at each option, the letter, the end.
        letter_places: (num types,) places among the Q after which the letter is said.
        letters: (B, num types) right letters, 0 to 3.
    """

    ids: Tensor
    places: Tensor
    targets: Tensor
    letter_places: Tensor
    letters: Tensor


def make_form(tokenizer: PreTrainedTokenizerBase, instruction: str = INSTRUCTION) -> PackedForm:
    """Build the packed form of all types of questions.

    Raises:
        ValueError: If a word that may be an answer is not one token.
    """
    prompts = []
    for kind in QUESTION_TYPES:
        text = prompt(ask(kind.text, list(kind.words[:4]), instruction))
        prompts.append(tokenizer_image_token(text, tokenizer, return_tensors="pt"))
    before, shared, tails = split_prompts(prompts)
    letter = torch.tensor([_single_id(tokenizer, LETTERS[0])])
    forms = []
    for kind, ids in zip(QUESTION_TYPES, tails, strict=True):
        word_ids = torch.tensor([_single_id(tokenizer, f" {word}") for word in kind.words])
        tail = torch.cat([ids, letter])
        first_option = int((tail == letter).nonzero()[0])
        gaps = first_option + 2 + 4 * torch.arange(len(LETTERS))  # "A", ".", " word", "\n"
        if not torch.equal(tail[gaps], word_ids[: len(LETTERS)]):
            raise ValueError(f"the options of {kind.name} are not four tokens each")
        forms.append(QuestionForm(kind, tail, first_option - 1, gaps, word_ids))
    return PackedForm(Frame(before, shared, tuple(len(form.ids) for form in forms)), tuple(forms))


def split_prompts(prompts: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Split prompts about one video: what they share before and after the video, and the rest of each.

    Args:
        prompts: Ids of each, with one placeholder for the video at the same place.
    """
    shortest = min(len(ids) for ids in prompts)
    stacked = torch.stack([ids[:shortest] for ids in prompts])
    common = int((stacked == stacked[0]).all(dim=0).long().cumprod(dim=0).sum())
    visual = int((prompts[0] == IMAGE_TOKEN_INDEX).nonzero())
    return prompts[0][:visual], prompts[0][visual + 1 : common], [ids[common:] for ids in prompts]


def pack(
    form: PackedForm, clips: Clips, tokenizer: PreTrainedTokenizerBase, generator: torch.Generator
) -> PackedQuestions:
    """Ask every type of question about each of B clips, with new options and letters."""
    yes, no = _single_id(tokenizer, " yes"), _single_id(tokenizer, " no")
    letter_ids = torch.tensor([_single_id(tokenizer, letter) for letter in LETTERS])
    stop = torch.full((len(clips), 1), int(tokenizer.convert_tokens_to_ids("<|im_end|>")))
    ids, places, targets, letter_places, all_letters, start = [], [], [], [], [], 0
    for question in form.questions:
        letters = torch.randint(len(LETTERS), (len(clips),), generator=generator)
        options = draw_options(question.kind, clips, letters, generator)
        row = question.ids.repeat(len(clips), 1)
        row[:, question.gaps] = question.word_ids[options]
        row[:, -1] = letter_ids[letters]
        is_right = torch.arange(len(LETTERS)) == letters[:, None]
        word = question.word_ids[question.kind.answer(clips)][:, None]
        length = len(question.ids)
        places += [
            torch.tensor([question.end]) + start,
            question.gaps + start,
            torch.arange(length - 2, length) + start,
        ]
        targets += [word, torch.where(is_right, yes, no), letter_ids[letters][:, None], stop]
        letter_places.append(start + length - 2)
        ids.append(row)
        all_letters.append(letters)
        start += length
    return PackedQuestions(
        torch.cat(ids, dim=1),
        torch.cat(places),
        torch.cat(targets, dim=1),
        torch.tensor(letter_places),
        torch.stack(all_letters, dim=1),
    )


def run_packed(
    model: LlavaQwenForCausalLM, frame: Frame, ids: Tensor, videos: Tensor, read_layer: int = 0
) -> tuple[Tensor, Tensor]:
    """Run packed questions (B, Q) about videos (B, V, D) through a model whose attention is `attention.NAME`.

    Returns:
        Hidden states (B, Q, D) of the questions after the last layer, normalised, and those (B, L, D) of everything
        after `read_layer` layers.
    """
    device, num_clips = videos.device, len(ids)
    embed = model.get_input_embeddings()
    before, shared = (embed(part.to(device)).expand(num_clips, -1, -1) for part in (frame.before, frame.shared))
    embeds = torch.cat([before, videos.to(before), shared, embed(ids.to(device))], dim=1)
    output = model.get_model()(
        inputs_embeds=embeds,
        attention_mask={"full_attention": None},
        blocks=Blocks.of(embeds.shape[1] - ids.shape[1], list(frame.lengths), device),
        position_ids=frame.positions(videos.shape[1]).to(device),
        output_hidden_states=True,
        use_cache=False,
    )
    return output.last_hidden_state[:, -ids.shape[1] :], output.hidden_states[read_layer]


def _single_id(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Return the only token of `text`.

    Raises:
        ValueError: If there are more.
    """
    ids = tokenizer(text, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise ValueError(f"{text!r} must be one token, got {len(ids)}: enlarge the vocabulary")
    return int(ids[0])
