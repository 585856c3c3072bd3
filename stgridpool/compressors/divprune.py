"""DivPrune: the tokens that are most unlike each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stgridpool.algorithms.max_min import cosine_distances, farthest_first
from stgridpool.algorithms.sets import Sets
from stgridpool.evidence import Evidence
from stgridpool.plan import Plan
from stgridpool.scorer import Rounded
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class DivPrune(Rounded):
    """Keep tokens of different directions: always the one least like its nearest neighbour among those kept before.

    The first is the token whose nearest neighbour of all is farthest. Distance is one minus the cosine, in float32.
    All distances in a set exist at once: 157 MB for 32 frames of 196 tokens as one video, 5 MB frame by frame.

    Source: DivPrune (CVPR 2025), arXiv 2503.02175, and its released code, which chooses among all visual tokens of a
    prompt, ``scope="video"``. ``released`` rounds a retention (0.098 is published) to the nearest number of tokens, as
    that code does; ``corrected``, the default, rounds down. If only copies of the tokens kept remain, both keep these
    from the first on, while the code keeps one token several times.

    Attributes:
        preset: "corrected" or "released", see above.
        scope: "video" chooses among all tokens; "frame" shares the budget among the frames as `frame_budget` says.

    Raises:
        ValueError: If an option is out of its range.
    """

    released_rounding: ClassVar[str] = "nearest"

    scope: str = "video"

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Choose in every set, and keep the chosen in their order."""
        del evidence
        sets = Sets.within(tokens, self.scope)
        counts = self.shares(tokens)
        distances = cosine_distances(tokens.features[sets.index], sets.is_there)
        chosen = farthest_first(distances, sets.is_there, int(counts.max()))
        return Plan.keep(sets.tokens_at(chosen, counts).sort().values, len(tokens))
