"""CDPruner: the tokens that are relevant to the question and unlike each other."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.determinant import largest_determinant
from stgridpool.algorithms.sets import Sets
from stgridpool.evidence import Evidence, JointPatches, Need, Question
from stgridpool.options import choice
from stgridpool.plan import Plan
from stgridpool.scorer import Scoped
from stgridpool.video_tokens import VideoTokens

RELEVANCE: dict[str, tuple[Need, ...]] = {
    "decoder": (Question("decoder"),),
    "tower": (JointPatches(), Question("tower")),
}
"""The inputs that the relevance of a token can be computed from, by their names as options."""


@dataclass(frozen=True)
class CDPruner(Scoped):
    """Keep the tokens that a determinantal point process finds most probable: relevant ones of different directions.

    Its kernel is the cosine of two tokens times the relevance of both, and tokens are chosen one after the other.
    Relevance is scaled to 0 to 1 over the whole video; if all tokens are equally relevant, it does not count.

    The released code compares CLIP's patches with its embedding of the question, ``relevance="tower"``, where patches
    *least* like the question are the relevant ones. SigLIP has no such patches, so that ``"decoder"`` is the default:
    the similarity of a token to the mean embedding of the question's tokens, as in OpenVINO's port, which splits frames
    in halves and weighs relevance otherwise. Other differences: the code fails where all tokens are equally relevant,
    and keeps one token several times where more are asked for than there are directions; here the first of the others
    follow. All similarities in a set exist at once: 157 MB for 32 frames of 196 tokens in one set, 5 MB frame by frame.

    Source: CDPruner (NeurIPS 2025), arXiv 2506.10967.

    Attributes:
        scope: "frame", as in the released code, shares the budget among the frames as `frame_budget` says;
            "video" chooses among all tokens.
        relevance: "decoder" or "tower", see above.

    Raises:
        ValueError: If an option is out of its range.
    """

    relevance: str = "decoder"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("relevance", self.relevance, RELEVANCE)

    @property
    def needs(self) -> frozenset[Need]:
        """The question, and for "tower" the patches in its space."""
        return frozenset(RELEVANCE[self.relevance])

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Choose in every set, and keep the chosen in their order."""
        sets = Sets.within(tokens, self.scope)
        counts = self.shares(tokens)
        unit = F.normalize(tokens.features.float(), dim=-1)
        weighted = (unit * self._relevance(unit, evidence)[:, None])[sets.index]
        kernel = weighted @ weighted.mT
        chosen = largest_determinant(kernel, sets.is_there, int(counts.max()))
        return Plan.keep(sets.tokens_at(chosen, counts).sort().values, len(tokens))

    def _relevance(self, unit: Tensor, evidence: Evidence) -> Tensor:
        """Return the relevance (N,) of tokens of directions `unit` (N, D), 0 to 1."""
        if self.relevance == "tower":
            patches, texts = (F.normalize(evidence[need].float(), dim=-1) for need in RELEVANCE["tower"])
            similarity = -(patches @ texts.mT).mean(1)
        else:
            similarity = unit @ F.normalize(evidence[Question("decoder")].float().mean(0), dim=0)
        low, high = similarity.amin(), similarity.amax()
        return ((similarity - low + 1e-6) / (high - low)).where(high > low, 1)
