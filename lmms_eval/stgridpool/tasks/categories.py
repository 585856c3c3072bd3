"""lmms-eval's scores by category, without a line for every category that no question belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loguru import logger

Result = Mapping[str, Any]


def videomme_aggregate_results(results: Sequence[Result]) -> float:
    """Compute Video-MME's accuracy as lmms-eval does, 0 to 100, and log that of each category with questions."""
    from lmms_eval.tasks.videomme.utils import videomme_aggregate_results as stock  # noqa: PLC0415 - lmms-eval is slow

    groups = ("duration", "category", "sub_category", "task_category")
    return _aggregate(stock, results, groups)


def mlvu_aggregate_results(results: Sequence[Result]) -> float:
    """Compute MLVU's mean of seven kinds of question as lmms-eval does, 0 to 100, and log each kind with questions."""
    from lmms_eval.tasks.mlvu.utils import mlvu_aggregate_results_dev as stock  # noqa: PLC0415 - lmms-eval is slow

    return _aggregate(stock, results, ("task_type",))


def _aggregate(stock: Callable[[Sequence[Result]], float], results: Sequence[Result], groups: Sequence[str]) -> float:
    """Call lmms-eval's function without its log, and log the accuracy of each group that has questions."""
    logger.disable(stock.__module__)
    try:
        score = float(stock(results))
    finally:
        logger.enable(stock.__module__)
    for name in groups:
        right: dict[str, list[bool]] = defaultdict(list)
        for result in results:
            right[result[name]].append(result["pred_answer"] == result["answer"])
        shares = (f"{value} {100 * sum(found) / len(found):.1f} %" for value, found in sorted(right.items()))
        logger.info(f"accuracy by {name}: {', '.join(shares)}")
    return score
