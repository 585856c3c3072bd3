"""Finished runs are read as lmms-eval writes them."""

import json

from lmms_eval_stgridpool.comparison.finished_run import load_run


def test_an_answer_may_hold_what_unicode_calls_a_new_line(tmp_path):
    sample = {"doc_id": 0, "filtered_resps": ["one\u2028two\x85three"]}
    (tmp_path / "now_results.json").write_text(json.dumps({"results": {"task": {"accuracy,none": 1.0}}}))
    (tmp_path / "now_run.json").write_text("{}")
    lines = json.dumps(sample, ensure_ascii=False) + "\n"  # as lmms-eval does
    (tmp_path / "now_samples_task.jsonl").write_text(lines, encoding="utf-8")
    assert load_run(tmp_path).samples == {"task": [sample]}
