"""From what clips show to pictures of any size.

Everything is drawn from formulas with soft edges, so that a picture of 98 pixels and one of 256 show the same: training
draws at the size that the vision tower reads, files are written larger.

Letters: B clips, F pictures of S x S pixels, K things to paint, n pixels along a thing's window.
"""

import torch
from torch import Tensor

from .world import COLOURS, NUM_CARDS, SHAPES, UNITS, Clips

MOVER_RADIUS, CARD_RADIUS, CARD_SHAPE_RADIUS, LAMP_RADIUS, DIGIT_RADIUS = 0.8, 0.95, 0.72, 0.72, 0.9  # in units
CARD_GREY, WHITE = (120.0, 120.0, 120.0), (245.0, 245.0, 245.0)
DISC, SQUARE = SHAPES.index("circle"), SHAPES.index("square")
# Bars of a seven-segment display: row and column of the middle, half height and half width, in radii.
BARS = (
    (-0.8, 0.0, 0.14, 0.5),
    (-0.4, 0.45, 0.5, 0.14),
    (0.4, 0.45, 0.5, 0.14),
    (0.8, 0.0, 0.14, 0.5),
    (0.4, -0.45, 0.5, 0.14),
    (-0.4, -0.45, 0.5, 0.14),
    (0.0, 0.0, 0.14, 0.5),
)
LIT_BARS = ("012345", "12", "01346", "01236", "1256", "02356", "023456", "012", "0123456", "012356")


def draw_clips(clips: Clips, size: int, times: Tensor | None = None, device: torch.device | str = "cpu") -> Tensor:
    """Pictures of B clips at `times` (F,) in seconds, by default 0, 1, 2, ...: (B, F, 3, S, S) float32, 0 to 255.

    The mover moves steadily; everything else changes at whole seconds only.
    """
    times = torch.arange(clips.seconds, dtype=torch.float32) if times is None else times
    second = times.floor().long().clamp(max=clips.seconds - 1)  # (F,)
    num_clips, num_pictures = len(clips), len(times)
    colours = (torch.tensor(list(COLOURS.values()))[None] + clips.tint).to(device)  # (B, 6, 3)
    canvas = _Canvas(_backgrounds(clips, size, num_pictures).to(device))
    everything = torch.arange(num_clips * num_pictures)
    clip = everything // num_pictures

    def along(values: Tensor) -> Tensor:
        return values.repeat_interleave(num_pictures, dim=0)

    square, disc = torch.tensor([SQUARE]), torch.tensor([DISC])
    grey, white = torch.tensor([CARD_GREY]), torch.tensor([WHITE])
    canvas.paint(everything, along(clips.card[:, 1:]), CARD_RADIUS / 0.8, square.expand(len(clip)), grey)
    shown = (clips.card_starts[:, None, :] <= second[None, :, None]).sum(dim=2) - 1  # (B, F)
    shown = clips.card_colours.gather(1, shown.clamp(0, NUM_CARDS - 1)).flatten()
    card_shapes = along(clips.card[:, 0]).long()
    canvas.paint(everything, along(clips.card[:, 1:]), CARD_SHAPE_RADIUS, card_shapes, colours[clip, shown])
    lit = clips.lamp_on[:, second].flatten().nonzero().flatten()
    canvas.paint(lit, clips.lamp[lit // num_pictures, 1:], LAMP_RADIUS, disc.expand(len(lit)), white)
    seen = (clips.needle[:, 1:] == second[None]).flatten().nonzero().flatten()
    digit = clips.needle[seen // num_pictures, 0]
    canvas.paint(seen, clips.needle_place[seen // num_pictures], DIGIT_RADIUS, digit + len(SHAPES), white)
    part = (times / (clips.seconds - 1)).clamp(max=1)[None, :, None]
    centre = clips.path[:, :1] + (clips.path[:, 1:] - clips.path[:, :1]) * part  # (B, F, 2)
    mover_colour, mover_shape = colours[clip, clips.mover[clip, 0]], clips.mover[clip, 1]
    canvas.paint(everything, centre.flatten(0, 1), MOVER_RADIUS, mover_shape, mover_colour)
    return canvas.pixels.permute(0, 3, 1, 2).unflatten(0, (num_clips, num_pictures)).clamp(0, 255)


def _backgrounds(clips: Clips, size: int, num_pictures: int) -> Tensor:
    """(B * F, S, S, 3): a dark colour that changes slowly over the picture."""
    ramp = torch.linspace(-1, 1, size)
    colour, down, right = clips.background[:, :, None, None].unbind(dim=1)  # (B, 1, 1, 3) each
    one = colour + ramp[None, :, None, None] * down + ramp[None, None, :, None] * right  # (B, S, S, 3)
    return one.repeat_interleave(num_pictures, dim=0)


class _Canvas:
    """Pictures (F, S, S, 3) to paint things on, each within its own window."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels
        self.pixels_per_unit = pixels.shape[1] / UNITS

    def paint(self, pictures: Tensor, centres: Tensor, radius: float, kinds: Tensor, colours: Tensor) -> None:
        """Paint K things onto the pictures (K,), centred at (K, 2) row and column in units.

        Args:
            pictures: Which picture each is painted on.
            centres: In units.
            radius: In units.
            kinds: (K,) a position in `SHAPES`, or after them a digit.
            colours: (K, 3) or (1, 3), 0 to 255.
        """
        if not len(pictures):
            return
        device, scale = self.pixels.device, self.pixels_per_unit
        pictures, centres, kinds, colours = (x.to(device) for x in (pictures, centres, kinds, colours))
        reach = int(radius * scale) + 2
        window = torch.arange(-reach, reach + 1, device=device)
        middle = (centres * scale).floor().long()  # the pixel under the centre
        places = (middle[:, :, None] + window).clamp(0, self.pixels.shape[1] - 1)  # (K, 2, n)
        offset = ((places + 0.5) / scale - centres[:, :, None]) / radius  # in radii
        mask = _mask(kinds, offset[:, 0, :, None], offset[:, 1, None, :], softness=1 / (radius * scale))[..., None]
        where = (pictures[:, None, None], places[:, 0, :, None], places[:, 1, None, :])
        under = self.pixels[where]  # (K, n, n, 3)
        self.pixels[where] = under + mask * (colours[:, None, None] - under)


def _mask(kinds: Tensor, row: Tensor, column: Tensor, softness: float) -> Tensor:
    """(K, n, n) from 0 outside to 1 inside, for rows (K, n, 1) and columns (K, 1, n) in radii."""
    distance = torch.empty(len(kinds), row.shape[1], column.shape[2], device=row.device)
    for kind in kinds.unique().tolist():
        chosen = kinds == kind
        formula = _shape_distance if kind < len(SHAPES) else _digit_distance
        distance[chosen] = formula(kind, row[chosen], column[chosen])
    return (0.5 - distance / softness).clamp(0, 1)


def _shape_distance(kind: int, row: Tensor, column: Tensor) -> Tensor:
    """About the distance from the edge of a shape, in radii, negative inside."""
    across, down = column.abs(), row.abs()
    match SHAPES[kind]:
        case "circle":
            return (row**2 + column**2).sqrt() - 0.92
        case "square":
            return torch.maximum(across, down) - 0.8
        case "triangle":
            return torch.maximum((row - 0.75).expand(-1, -1, column.shape[2]), (2 * across - row - 0.95) / 5**0.5)
        case "diamond":
            return (across + down - 1.08) / 2**0.5
        case "cross":
            upright = torch.maximum(across - 0.3, down - 0.95)
            return torch.minimum(upright, torch.maximum(down - 0.3, across - 0.95))
        case _:
            return ((row**2 + column**2).sqrt() - 0.7).abs() - 0.24


def _digit_distance(kind: int, row: Tensor, column: Tensor) -> Tensor:
    """Compute the same for a digit: the distance from the nearest of its bars."""
    lit = LIT_BARS[kind - len(SHAPES)]
    bars = [BARS[int(bar)] for bar in lit]
    distances = [
        torch.maximum((row - middle_row).abs() - half_height, (column - middle_column).abs() - half_width)
        for middle_row, middle_column, half_height, half_width in bars
    ]
    return torch.stack(distances).amin(dim=0)
