"""Imitate the effects of a video codec and of resizing, at the vision tower's input size.

Training sees such pictures, so that real files, encoded as H.264, decoded and resized, look no different to the model.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)


def degrade(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, F, 3, S, S), 0 to 255, as they might come out of a file; whole numbers, float32.

    Each clip gets its own strengths of blur or ringing, washed-out colours, ghosts of the last picture, blocks, noise.
    """
    num_clips = len(pictures)
    device = pictures.device

    def strength(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(num_clips, 1, 1, 1, 1, generator=generator)).to(device)

    smooth = _blurred(pictures)
    pictures = torch.lerp(pictures, smooth, strength(-0.35, 0.8))  # below 0: ringing
    luma = (pictures * torch.tensor(LUMA, device=device)[:, None, None]).sum(dim=2, keepdim=True)
    chroma = pictures - luma
    pictures = luma + torch.lerp(chroma, _blurred(chroma), strength(0.0, 1.0)) * strength(0.9, 1.05)
    before = torch.cat([pictures[:, :1], pictures[:, :-1]], dim=1)
    pictures = torch.lerp(pictures, before, strength(0.0, 0.06))
    size = pictures.shape[-1]
    coarse = torch.randn(*pictures.shape[:3], size // 7, size // 7, generator=generator).to(device)
    fine = torch.randn(*pictures.shape[:2], 1, size, size, generator=generator).to(device)
    blocks = F.interpolate(coarse.flatten(0, 1), size=(size, size)).view_as(pictures)
    pictures = pictures + strength(0.0, 2.5) * blocks + strength(0.0, 4.0) * fine
    return pictures.round().clamp(0, 255)


def _blurred(pictures: Tensor) -> Tensor:
    """Each pixel as the mean of the 3 x 3 pixels around it."""
    flat = F.pad(pictures.flatten(0, 1), (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(flat, 3, stride=1).view_as(pictures)
