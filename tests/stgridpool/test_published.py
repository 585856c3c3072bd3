"""Published accuracies: what is found, and that the file is sound."""

import pytest

from stgridpool import COMPRESSORS
from stgridpool.published import published, published_for
from stgridpool.retention import DEFINITIONS

VIDEO, ONE_VISION = "lmms-lab/LLaVA-Video-7B-Qwen2", "lmms-lab/llava-onevision-qwen2-7b-ov"


def test_numbers_of_the_papers():
    """From STTM's table 12, FlashVID's table 1 and ST-GridPool's."""
    [one] = published_for("sttm", ONE_VISION, "videomme_sttm", 0.3)
    assert (one.accuracy, one.whole, one.retention_of) == (60.6, 59.0, "last_layer")
    [one] = published_for("flashvid", "models/LLaVA-Video-7B-Qwen2/", "videomme_local", 0.1)
    assert (one.accuracy, one.whole, one.retention_of) == (60.9, 64.2, "layer_average")
    [one] = published_for("framefusion", "Efficient-Large-Model/NVILA-8B-Video", "egoschema", 0.3)
    assert (one.accuracy, one.whole, one.retention_of) == (51.3, 52.9, "layer_average")
    [one] = published_for("st_gridpool", VIDEO, "longvideobench_val_v", None)
    assert (one.accuracy, one.whole) == (60.1, 58.2)
    assert str(one) == (
        "published: st_gridpool, LLaVA-Video-7B-Qwen2, longvideobench: 60.1 (58.2 without compression); 64 frames; as "
        "many tokens as the model's own 2x2 average pooling leaves; ST-GridPool (ICLR 2026), arXiv 2605.22078"
    )


def test_several_papers_ran_the_same_method():
    found = published_for("visionzip", ONE_VISION, "videomme", 0.1)
    assert [one.accuracy for one in found] == [53.4, 53.3, 55.9]
    assert len({one.source for one in found}) == 3


@pytest.mark.parametrize(
    ("method", "checkpoint", "task", "retention"),
    [
        ("fastvid", "scripts/nano/checkpoint", "videomme_local", 0.1),  # the miniature is no published model
        ("fastvid", VIDEO, "tempcompass_multi_choice_local", 0.1),
        ("fastvid", VIDEO, "videomme", 0.12),
        ("fastvid", VIDEO, "egoschema_subset", 0.1),  # papers score all questions
        ("nsp", VIDEO, "videomme", 0.1),
        ("fastv", "lmms-lab/LLaVA-Video-7B-Qwen2-Video-Only", "mlvu_dev_sttm", 0.3),  # known to be wrong
    ],
)
def test_nothing_is_shown_where_something_differs(method, checkpoint, task, retention):
    assert published_for(method, checkpoint, task, retention) == []


def test_the_file_names_our_methods_and_definitions():
    assert len(published()) > 250
    for one in published():
        assert one.method in COMPRESSORS
        assert (one.retention is None) == (one.retention_of is None)
        assert one.retention is None or (0 < one.retention < 1 and one.retention_of in DEFINITIONS)
        assert 20 < one.accuracy < 90
        assert 20 < one.whole < 90
