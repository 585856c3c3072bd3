"""Tables as `datasets` reads them."""

import json

import pytest

from lmms_eval_stgridpool.run.task_tables import find_table


def find(place, **options):
    return find_table({"dataset_path": place, "dataset_kwargs": options}, None)


def test_a_mark_of_the_byte_order_is_not_part_of_a_column(tmp_path):
    (tmp_path / "test.csv").write_text("video,question\na.mp4,What?\n", encoding="utf-8-sig")
    table = find(str(tmp_path))
    assert table.columns() == ["video", "question"]
    assert table.values("video") == ["a.mp4"]


def test_any_row_of_a_json_file_may_have_a_column(tmp_path):
    rows = [{"video": "a"}, {"video": "b", "hint": "left"}]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    table = find(str(tmp_path))
    assert table.columns() == ["video", "hint"]
    assert table.values("hint") == [None, "left"]


def test_a_text_may_hold_what_unicode_calls_a_new_line(tmp_path):
    row = {"question": "one\u2028two\x85three"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert find(str(tmp_path)).values("question") == ["one\u2028two\x85three"]


@pytest.mark.parametrize("option", [{"field": "data"}, {"delimiter": ";"}])
def test_files_that_are_read_with_options_are_left_to_lmms_eval(tmp_path, option):
    path = tmp_path / "questions.json"
    path.write_text(json.dumps({"data": [{"video": "a"}]}, indent=2))
    assert find("json", data_files={"test": str(path)}, **option) is None
