"""What goes with the rows of a sweep: seconds that its runs share, and published accuracies."""

from types import SimpleNamespace

import pytest

from lmms_eval_stgridpool.comparison.choice import Choice
from lmms_eval_stgridpool.comparison.outcome import published_beside, shared_seconds
from stgridpool import Bilinear
from stgridpool.equal_budget import Reference


def test_reading_and_encoding_count_in_whichever_run_they_were_needed_first():
    """The third method changes frames, so it has its videos read and encoded once more; the second run gave up."""
    first = {"requests": 4, "seconds": {"decode": 1.0, "vision": 2.0, "prefill": 100.0}}
    third = {"requests": 4, "seconds": {"decode": 3.0, "vision": 2.0, "prefill": 100.0}}
    assert shared_seconds([first, None, third]) == pytest.approx(8 / 4)


def test_runs_without_new_answers_share_no_seconds():
    assert shared_seconds([{"requests": 0, "seconds": {}}]) == 0.0


def test_published_accuracies_stand_beside_those_of_the_same_checkpoint_only():
    reference = Reference(Bilinear(2), (28, 28), 28)
    choices = [Choice.parse(name).at(0.1, "entering_llm", reference) for name in ("fastvid", "random")]
    rows = [SimpleNamespace(run=choice.folder, task="videomme") for choice in choices]
    found = published_beside(rows, choices, "lmms-lab/LLaVA-Video-7B-Qwen2")
    assert [line.split(": ")[1:4] for line in found] == [
        [
            "fastvid at 10 % (layer_average), LLaVA-Video-7B-Qwen2, videomme",
            "59.8 (64.2 without compression); 64 frames, one newline per frame; FlashVID (ICLR 2026), arXiv 2602.08024",
        ],
        [
            "fastvid at 10 % (last_layer), LLaVA-Video-7B-Qwen2, videomme",
            "60.2 (64.1 without compression); 64 frames; InfoMerge (2026)",
        ],
    ]
    assert published_beside(rows, choices, "scripts/nano/checkpoint") == ()
