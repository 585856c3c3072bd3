"""The stages of the training, in numbers."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Attributes:
        name: What the progress bar calls it.
        steps: Optimiser steps.
        clips: Clips per step over all processes.
        seconds: Shortest and longest clip; each length between is as likely.
        long_share: Fraction of the steps that take half as many clips of 17 to 32 seconds instead.
        patch_weight: Weight of naming the patches from the projector's output; it forgets where they are without it.
        learning_rate: At the start and at the end of the stage, of all but the tower; between them half a cosine.
        tower_learning_rate: The same for the tower.
        longest_whole: Frames up to which clips are also shown unpooled.
    """

    name: str
    steps: int
    clips: int
    seconds: tuple[int, int]
    learning_rate: tuple[float, float]
    tower_learning_rate: tuple[float, float]
    longest_whole: int = 0
    long_share: float = 0.0
    patch_weight: float = 0.0

    def rates(self, step: int) -> tuple[float, float]:
        """Learning rates of the others and of the tower at a step of the stage."""
        part = (1 - math.cos(math.pi * step / self.steps)) / 2
        return tuple(start + (end - start) * part for start, end in (self.learning_rate, self.tower_learning_rate))


# The first teaches the vision tower alone to name what its patches show, the others teach the whole model to answer.
STAGES = (
    Stage("tower", 400, 64, (4, 4), (2e-3, 2e-4), (2e-3, 2e-4)),
    Stage("short", 600, 16, (4, 8), (1.5e-3, 1.5e-3), (2e-4, 5e-4), longest_whole=6),
    Stage("medium", 1000, 16, (6, 16), (1.5e-3, 1.0e-3), (5e-4, 3e-4), longest_whole=8, patch_weight=0.2),
    Stage("long", 850, 16, (8, 16), (1.0e-3, 0.0), (3e-4, 0.0), longest_whole=16, long_share=0.15, patch_weight=0.2),
)
WARM_UP = 50  # steps at the start of each stage over which the learning rate rises
LONG_SECONDS = (17, 32)  # shortest and longest of the clips that `long_share` is about
