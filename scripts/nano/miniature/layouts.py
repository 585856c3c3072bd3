"""In which grids the model sees videos during training.

A model that is trained with one grid reads places off the order of the tokens, and any other grid confuses it. So
every batch draws its grid: pooled in several ways, not pooled, with tokens left out. Newlines follow from where the
tokens stand.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from llava.model.builder import LlavaQwenForCausalLM
from stgridpool import Compressor, Plan, VideoTokens, build_compressor, compress_tokens
from stgridpool.newlines import insert_newlines


@dataclass(frozen=True)
class Layout:
    """A grid.

    Attributes:
        compressor: What pools the frames.
        kept: Fraction of the tokens kept after that, above 0 and at most 1; the tokens are drawn again each time.
    """

    compressor: Compressor
    kept: float = 1.0


@dataclass(frozen=True, eq=False)
class Seen:
    """Videos as the language model gets them.

    Attributes:
        embeds: (B, V, D) visual tokens and newlines.
        frame_ends: (T',) places of the newlines that end a frame.
        frames: (T',) which frames these are, in the order of time.
        projected: (B, T, n*n, D) all patches after the projector.
    """

    embeds: Tensor
    frame_ends: Tensor
    frames: Tensor
    projected: Tensor


OWN = Layout(build_compressor("bilinear"))  # the checkpoint's own pooling
WHOLE = Layout(build_compressor("none"))
MIX = {  # how often each is drawn
    OWN: 0.45,
    Layout(build_compressor("average", kernel_size=2)): 0.15,
    Layout(build_compressor("average", kernel_size=2, ceil_mode=True)): 0.05,
    Layout(build_compressor("bilinear", stride=3)): 0.05,
    WHOLE: 0.14,
    Layout(OWN.compressor, kept=0.5): 0.12,
    Layout(WHOLE.compressor, kept=0.4): 0.04,
}


def draw_layout(seconds: int, longest_whole: int, generator: torch.Generator) -> Layout:
    """Draw the layout of a batch; clips of more than `longest_whole` frames are always pooled."""
    weights = torch.tensor(list(MIX.values()))
    layout = list(MIX)[int(weights.multinomial(1, generator=generator))]
    chance = float(torch.rand((), generator=generator))
    if layout.compressor == WHOLE.compressor and seconds * layout.kept > longest_whole:
        return OWN
    return replace(layout, kept=layout.kept * (0.6 + 1.3 * chance)) if layout.kept < 1 else layout


def encode_clips(model: LlavaQwenForCausalLM, pixel_values: Tensor, layout: Layout, generator: torch.Generator) -> Seen:
    """Videos (B, T, 3, S, S) of one length through tower, projector, pooling and newlines.

    A layout looks only at sizes, so the videos of a batch pass through it side by side as one wide video.
    """
    num_clips, seconds = pixel_values.shape[:2]
    network = model.get_model()
    side = network.vision_tower.num_patches_per_side
    features = network.mm_projector(network.vision_tower(pixel_values.flatten(0, 1)))  # (B*T, n*n, D)
    wide = features.unflatten(0, (num_clips, seconds)).permute(1, 2, 0, 3).flatten(2)  # (T, n*n, B*D)
    tokens, _ = compress_tokens(layout.compressor, VideoTokens.of(wide.unflatten(1, (side, side)).float()), {})
    if layout.kept < 1:
        kept = (torch.rand(len(tokens), generator=generator) < layout.kept).nonzero().flatten().to(wide.device)
        tokens = tokens.through(Plan.keep(kept, len(tokens)))
    laid_out = insert_newlines(tokens, network.image_newline.repeat(num_clips), "grid")
    embeds = laid_out.unflatten(1, (num_clips, -1)).transpose(0, 1)
    numbered = replace(tokens, features=tokens.frames()[:, None] + 1.0)
    frame_of_token = insert_newlines(numbered, torch.zeros(1), "grid").flatten().cpu()  # 0: newline
    last = frame_of_token.cummax(0).values
    ends = (torch.diff(last, append=last[-1:] + 1) > 0).nonzero().flatten()
    return Seen(embeds, ends, last[ends].long() - 1, features.unflatten(0, (num_clips, seconds)))
