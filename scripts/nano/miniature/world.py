"""The content of the clips: a small world of events that questions can be asked about.

Every clip holds everything, so that every type of question fits every clip. The picture is 7 x 7 units, and the last
unit on the right and at the bottom stays empty: what happens, happens in 3 x 3 cells of 2 x 2 units.

* A mover, a coloured shape, crosses a block of 2 x 2 cells from left, right, top or bottom during the whole clip.
* A grey card in another cell shows four coloured shapes one after the other, each in another colour.
* A white lamp in a corner cell lights up in one to four single seconds that do not touch.
* A digit appears in a further cell in one second only: the needle.

Letters: B clips, T seconds. Sizes and places are in units, times in seconds.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

UNITS = 7  # units along a side of the picture
COLOURS = {
    "red": (225, 45, 45),
    "green": (40, 190, 60),
    "blue": (60, 90, 240),
    "yellow": (235, 220, 50),
    "cyan": (50, 215, 225),
    "magenta": (225, 60, 215),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}  # (rows, columns)
CORNERS = ("northwest", "northeast", "southwest", "southeast")
COUNTS = ("one", "two", "three", "four")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUM_CARDS = 4
MIN_SECONDS = 4  # one for each card


@dataclass(frozen=True, eq=False)
class Clips:
    """The content of B clips of T seconds. Colours, shapes and so on are positions in the lists above.

    Attributes:
        seconds: T, at least `MIN_SECONDS`.
        mover: (B, 3) colour, shape and direction.
        path: (B, 2, 2) row and column of the mover's centre in the first and in the last second.
        card_colours: (B, 4) colours on the card, in order of time.
        card_starts: (B, 4) second from which each is shown; the first is 0.
        card: (B, 3) shape on the card, row and column of its centre.
        lamp: (B, 3) corner, row and column of its centre.
        lamp_on: (B, T) whether it is lit.
        needle: (B, 2) digit, and the second in which it is shown.
        needle_place: (B, 2) row and column of its centre.
        background: (B, 3, 3) colour, and its slopes along rows and columns, 0 to 255.
        tint: (B, 6, 3) what is added to each of the colours, 0 to 255.
    """

    seconds: int
    mover: Tensor
    path: Tensor
    card_colours: Tensor
    card_starts: Tensor
    card: Tensor
    lamp: Tensor
    lamp_on: Tensor
    needle: Tensor
    needle_place: Tensor
    background: Tensor
    tint: Tensor

    def __len__(self) -> int:
        return len(self.mover)

    @property
    def count(self) -> Tensor:
        """(B,) how often the lamp lights up."""
        return self.lamp_on.sum(dim=1)


def plan_clips(num_clips: int, seconds: int, generator: torch.Generator) -> Clips:
    """Draw what `num_clips` clips show, on the CPU; each property is uniform and independent of the others.

    Clips of fewer than seven seconds have room for fewer than four flashes of the lamp.

    Raises:
        ValueError: If `seconds` is below `MIN_SECONDS`.
    """
    if seconds < MIN_SECONDS:
        raise ValueError(f"seconds must be at least {MIN_SECONDS}, got {seconds}")

    def below(limit: int, *shape: int) -> Tensor:
        return torch.randint(limit, (num_clips, *shape), generator=generator)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(num_clips, *shape, generator=generator)

    direction = below(len(DIRECTIONS))
    block = below(2, 2)  # first row and column of the mover's cells, in cells
    corner_of_block = 2 * (1 - block)  # the corner opposite the mover's block
    cells, lamp_corner = _free_cells(block, corner_of_block, generator)
    centres = 2.0 * cells + 1 + between(-0.12, 0.12, 3, 2)  # (B, 3, 2)
    return Clips(
        seconds=seconds,
        mover=torch.stack([below(len(COLOURS)), below(len(SHAPES)), direction], dim=1),
        path=_paths(2.0 * block + 2, direction, between(0, 1, 4)),
        card_colours=_shuffles(num_clips, len(COLOURS), generator)[:, :NUM_CARDS],
        card_starts=_card_starts(num_clips, seconds, generator),
        card=torch.cat([below(len(SHAPES), 1), centres[:, 0]], dim=1),
        lamp=torch.cat([lamp_corner[:, None], centres[:, 1]], dim=1),
        lamp_on=_flashes(num_clips, seconds, generator),
        needle=torch.stack([below(len(DIGITS)), below(seconds)], dim=1),
        needle_place=centres[:, 2],
        background=torch.cat([between(15, 75, 1, 3), between(-25, 25, 2, 3)], dim=1),
        tint=between(-18, 18, len(COLOURS), 3),
    )


def _shuffles(num_rows: int, size: int, generator: torch.Generator) -> Tensor:
    """(num_rows, size), each row a random order of 0 to size - 1."""
    return torch.rand(num_rows, size, generator=generator).argsort(dim=1)


def _free_cells(block: Tensor, opposite: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cells (B, 3, 2) of card, lamp and needle outside the mover's block, and the lamp's corner (B,).

    The five free cells are an L of three corners and two cells between them. The lamp gets one of the corners.
    """
    row, column = opposite[:, 0], opposite[:, 1]
    middle = torch.ones_like(row)
    corners = torch.stack(
        [torch.stack([row, column], 1), torch.stack([row, 2 - column], 1), torch.stack([2 - row, column], 1)], 1
    )  # (B, 3, 2)
    edges = torch.stack([torch.stack([row, middle], 1), torch.stack([middle, column], 1)], 1)  # (B, 2, 2)
    rows = torch.arange(len(block))[:, None]
    corners = corners[rows, _shuffles(len(block), 3, generator)]
    others = torch.cat([corners[:, 1:], edges], dim=1)[rows, _shuffles(len(block), 4, generator)]
    lamp = corners[:, 0]
    cells = torch.stack([others[:, 0], lamp, others[:, 1]], dim=1)
    return cells, lamp[:, 0] // 2 * 2 + lamp[:, 1] // 2


def _paths(centre: Tensor, direction: Tensor, chance: Tensor) -> Tensor:
    """(B, 2, 2) from where to where the mover goes in a block around `centre` (B, 2); `chance` (B, 4) is 0 to 1."""
    along = torch.tensor(list(DIRECTIONS.values()), dtype=torch.float32)[direction]  # (B, 2)
    across = along.flip(1).abs() * (2 * chance[:, :1] - 1)  # how far beside the middle
    start = centre - along * (1 + 0.25 * chance[:, 1:2]) + across
    end = centre + along * (1 + 0.25 * chance[:, 2:3]) + across
    return torch.stack([start, end], dim=1)


def _card_starts(num_clips: int, seconds: int, generator: torch.Generator) -> Tensor:
    """(B, 4) ascending seconds, the first 0; each picture stays for at least a third of an equal share."""
    at_least = max(seconds // (3 * NUM_CARDS), 1)
    spare = seconds - at_least * NUM_CARDS
    cuts = torch.randint(spare + 1, (num_clips, NUM_CARDS - 1), generator=generator).sort(dim=1).values
    first = torch.zeros(num_clips, 1, dtype=torch.long)
    return torch.cat([first, cuts + at_least * torch.arange(1, NUM_CARDS)], dim=1)


def _flashes(num_clips: int, seconds: int, generator: torch.Generator) -> Tensor:
    """(B, T) bool: one to four single seconds, no two adjacent; each count is equally likely."""
    most = min(len(COUNTS), (seconds + 1) // 2)
    counts = torch.randint(1, most + 1, (num_clips,), generator=generator)
    on = torch.zeros(num_clips, seconds, dtype=torch.bool)
    for row, count in enumerate(counts.tolist()):
        # count places among those that remain when each flash but the last also removes its neighbour
        places = torch.randperm(seconds - count + 1, generator=generator)[:count].sort().values
        on[row, places + torch.arange(count)] = True
    return on
