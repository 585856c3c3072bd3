"""The training losses.

Besides the letter, three auxiliary losses give a signal long before the letter does; the checkpoint contains none:

* the tower first learns to name what each of its patches shows, and later the projector's output must still tell it;
* the language model says the answer's word at the question mark, and yes or no at each option;
* a linear layer reads from the newline after each frame, half-way up the language model, what was seen so far.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from llava.model.builder import LlavaQwenForCausalLM

from .drawing import CARD_RADIUS, DIGIT_RADIUS, LAMP_RADIUS, MOVER_RADIUS
from .layouts import Seen
from .packing import PackedForm, PackedQuestions, run_packed
from .world import COLOURS, CORNERS, COUNTS, DIGITS, DIRECTIONS, SHAPES, UNITS, Clips

IGNORED = -100
PATCH_LABELS = {"role": 5, "colour": len(COLOURS), "shape": len(SHAPES), "digit": len(DIGITS), "place": UNITS**2}
FRAME_LABELS = {
    "count": len(COUNTS) + 1,
    "needle": len(DIGITS) + 1,
    "first": len(COLOURS),
    "card": len(COLOURS),
    "corner": len(CORNERS) + 1,
    "colour": len(COLOURS),
    "shape": len(SHAPES),
    "row": 2 * UNITS,
    "column": 2 * UNITS,
    "direction": len(DIRECTIONS),
}
READ_LAYER = 3  # the frame labels are read after this many layers


class Helpers(nn.Module):
    """The linear layers that are thrown away after training."""

    def __init__(self, vision_width: int, hidden_size: int) -> None:
        super().__init__()
        self.patch = nn.Linear(vision_width, sum(PATCH_LABELS.values()))
        self.norm = Qwen2RMSNorm(hidden_size)
        self.frame = nn.Linear(hidden_size, sum(FRAME_LABELS.values()))
        self.projected = nn.Linear(hidden_size, sum(PATCH_LABELS.values()))


def patch_labels(clips: Clips) -> dict[str, Tensor]:
    """Label what each patch shows in each second, (B, T, 7 * 7) for each of `PATCH_LABELS`; -100 where none applies."""
    num_clips, seconds = len(clips), clips.seconds
    middle = torch.arange(UNITS) + 0.5
    labels = {name: torch.full((num_clips, seconds, UNITS, UNITS), IGNORED) for name in PATCH_LABELS}
    labels["role"][:] = 0
    labels["place"][:] = torch.arange(UNITS**2).view(UNITS, UNITS)
    second = torch.arange(seconds)
    card = (clips.card_starts[:, None, :] <= second[None, :, None]).sum(dim=2) - 1
    always = torch.ones(num_clips, seconds, dtype=torch.bool)

    def mark(role: int, centre: Tensor, radius: float, shown: Tensor, **values: Tensor) -> None:
        near = (centre.expand(-1, seconds, -1)[..., None] - middle).abs() < radius + 0.1  # (B, T, 2, 7)
        covered = near[:, :, 0, :, None] & near[:, :, 1, None, :] & shown[..., None, None]
        labels["role"][covered] = role
        for name, value in values.items():
            whole = value.long()[..., None, None].expand(-1, seconds, UNITS, UNITS)
            labels[name][covered] = whole[covered]

    colours = clips.card_colours.gather(1, card)
    mark(1, clips.card[:, None, 1:], CARD_RADIUS, always, colour=colours, shape=clips.card[:, :1])
    mark(2, clips.lamp[:, None, 1:], LAMP_RADIUS, clips.lamp_on)
    mark(3, clips.needle_place[:, None], DIGIT_RADIUS, clips.needle[:, 1:] == second, digit=clips.needle[:, :1])
    mark(4, mover_places(clips), MOVER_RADIUS, always, colour=clips.mover[:, :1], shape=clips.mover[:, 1:2])
    return {name: value.flatten(2) for name, value in labels.items()}


def mover_places(clips: Clips) -> Tensor:
    """(B, T, 2) row and column of the mover in each second, in units."""
    part = torch.linspace(0, 1, clips.seconds)[:, None]
    return clips.path[:, :1] + (clips.path[:, 1:] - clips.path[:, :1]) * part


def frame_labels(clips: Clips, frames: Tensor) -> dict[str, Tensor]:
    """Label what was seen up to each of the `frames` (T',), (B, T') for each of `FRAME_LABELS`; -100 if unclear."""
    everything = torch.zeros(len(clips), len(frames), dtype=torch.long)
    needle_seen = clips.needle[:, 1:] <= frames
    lit = clips.lamp_on.cumsum(dim=1)[:, frames]
    card = (clips.card_starts[:, None, :] <= frames[None, :, None]).sum(dim=2) - 1
    mover = (2 * mover_places(clips)[:, frames]).long()  # in half units
    moved = (frames - frames[0]) / clips.seconds > 0.3
    return {
        "count": lit,
        "needle": torch.where(needle_seen, clips.needle[:, :1], len(DIGITS)),
        "first": everything + clips.card_colours[:, :1],
        "card": clips.card_colours.gather(1, card),
        "corner": torch.where(lit > 0, clips.lamp[:, :1].long(), len(CORNERS)),
        "colour": everything + clips.mover[:, :1],
        "shape": everything + clips.mover[:, 1:2],
        "row": mover[:, :, 0],
        "column": mover[:, :, 1],
        "direction": torch.where(moved, clips.mover[:, 2:], IGNORED),
    }


def labels_loss(logits: Tensor, labels: dict[str, Tensor], sizes: dict[str, int], scores: dict[str, Tensor]) -> Tensor:
    """Sum of the cross-entropies of `labels`, whose logits lie side by side; `scores` gets the accuracy of each."""
    total = logits.new_zeros(())
    for (name, given), part in zip(labels.items(), logits.float().split(list(sizes.values()), dim=-1), strict=True):
        label = given.to(logits.device)
        known = label != IGNORED
        if known.any():
            total = total + F.cross_entropy(part[known], label[known])
            scores[name] = (part[known].argmax(dim=-1) == label[known]).float().mean().detach()
    return total


def answer_loss(
    model: LlavaQwenForCausalLM,
    helpers: Helpers,
    form: PackedForm,
    questions: PackedQuestions,
    seen: Seen,
    labels: dict[str, Tensor],
    scores: dict[str, Tensor],
) -> Tensor:
    """Loss of all questions about B videos; `scores` gets the accuracy of each type, of words, and of frame labels."""
    device = seen.embeds.device
    hidden, middle = run_packed(model, form.frame, questions.ids, seen.embeds, READ_LAYER)
    targets = questions.targets.to(device)
    logits = model.lm_head(hidden[:, questions.places.to(device)]).float()  # (B, K, vocabulary)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    losses = losses.mean(dim=0).view(len(form.questions), -1)  # (types, 7): word, four options, letter, end
    correct = (logits.argmax(dim=-1) == targets).float().mean(dim=0).view(len(form.questions), -1)
    for question, row in zip(form.questions, correct.detach(), strict=True):
        scores[f"letter {question.kind.name}"], scores[f"word {question.kind.name}"] = row[5], row[0]
    ends = len(form.frame.before) + seen.frame_ends.to(device)
    frames = labels_loss(helpers.frame(helpers.norm(middle[:, ends])), labels, FRAME_LABELS, scores)
    weights = torch.tensor([1.0, 0.5, 0.5, 0.5, 0.5, 1.0, 0.1], device=device)
    return (losses * weights).sum(dim=1).mean() + 2 * frames / len(FRAME_LABELS)
