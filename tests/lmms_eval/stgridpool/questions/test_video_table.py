"""A user's own table is read alike from every format, and its mistakes are named with their row."""

import json

import pyarrow as pa
import pytest
from loguru import logger
from pyarrow import parquet

from lmms_eval_stgridpool.questions.video_table import TableQuestion, is_table, read_table, table_file, write_table

QUESTIONS = (("a.mp4", "What moves?", ["red, or so", "blue"], "B", "motion"), ("b", "Why?", None, "it is late", ""))
COLUMNS = ("video", "question", "options", "answer", "category")
ROWS = [dict(zip(COLUMNS, row, strict=True)) for row in QUESTIONS]
CSV = """video,question,options,answer,category
a.mp4,What moves?,"red, or so | blue",B,motion
b,Why?,,it is late,
"""


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def write_parquet(path):
    parquet.write_table(pa.Table.from_pylist(ROWS), path)
    return path


FORMATS = {
    "t.csv": lambda path: write(path, CSV),
    "t.CSV": lambda path: write(path, "\ufeff" + CSV.replace('"red, or so | blue"', '"[""red, or so"", ""blue""]"')),
    "t.json": lambda path: write(path, json.dumps(ROWS)),
    "lines.json": lambda path: write(path, "\n".join(map(json.dumps, ROWS))),
    "t.jsonl": lambda path: write(path, "\n\n".join(map(json.dumps, ROWS))),
    "t.parquet": write_parquet,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_the_same_questions(tmp_path, name):
    (tmp_path / "b.mkv").touch()
    assert read_table(FORMATS[name](tmp_path / name)) == [
        TableQuestion(str(tmp_path / "a.mp4"), "What moves?", ("red, or so", "blue"), "B", "motion"),
        TableQuestion(str(tmp_path / "b.mkv"), "Why?", (), "it is late", ""),
    ]


def test_tabs_separate_columns(tmp_path):
    text = "video\tquestion\toptions\tanswer\na.mp4\tWhat, then?\tA. red|B. blue\tB. blue\n"
    [question] = read_table(write(tmp_path / "t.tsv", text))
    assert (question.question, question.options, question.answer) == ("What, then?", ("red", "blue"), "B")


def test_columns_besides_video_and_question_may_be_missing(tmp_path):
    [question] = read_table(write(tmp_path / "t.csv", "note,question,video\nx,What?,/videos/0012.mp4\n"))
    assert question == TableQuestion("/videos/0012.mp4", "What?")


@pytest.mark.parametrize(
    ("answer", "letter"), [("B", "B"), ("blue", "B"), ("B. blue", "B"), ("a", "A"), ("3", "C"), (3, "C")]
)
def test_an_answer_is_a_letter_or_the_text_of_an_option(tmp_path, answer, letter):
    row = {"video": "v", "question": "q", "options": ["a", "blue", 3], "answer": answer}
    [question] = read_table(write(tmp_path / "t.json", json.dumps([row])))
    assert (question.answer, question.options) == (letter, ("a", "blue", "3"))


MISTAKES = [
    ([], "has no rows"),
    ([{"vidoe": "a", "question": "q"}], "has no column 'video', did you mean 'vidoe'? Available: vidoe, question"),
    ([{"video": "a", "answer": "q"}], "has no column 'question'. Available: video, answer"),
    ([{"video": "a", "question": "q"}, {"video": "a"}], "t.json, row 2 has no question"),
    ([{"video": None, "question": "q"}], "row 1 has no video"),
    ([["a", "q"]], "row 1 must be an object with column names, got ['a', 'q']"),
    ([{"video": "a", "question": "q", "options": ["x"]}], "row 1: options must be 2 to 26, all different, got ['x']"),
    ([{"video": "a", "question": "q", "options": "x|x"}], "all different, got ['x', 'x']"),
    ([{"video": "a", "question": "q", "options": "[x]"}], "row 1: options are not a JSON list"),
    ([{"video": "a", "question": "q", "options": 4}], "options must be a list, or texts separated by |, got 4"),
    (
        [{"video": "a", "question": "q", "options": ["x", "y"], "answer": "C"}],
        "row 1: the answer must be one of A, B or an option's text, got 'C'",
    ),
    (
        [{"video": "a", "question": "q", "options": ["B", "A"], "answer": "B"}],
        "row 1: the answer 'B' is a letter and the text of another option; give its letter only",
    ),
]


@pytest.mark.parametrize(("rows", "message"), MISTAKES)
def test_mistakes_are_named(tmp_path, rows, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared below
        read_table(write(tmp_path / "t.json", json.dumps(rows)))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "video,question\na,b,c\n", "row 1 has more cells than columns: put text with ',' in quotes"),
        ("t.json", "[{]", "cannot be read: "),
        ("t.jsonl", "{}\n{", "cannot be read: "),
        ("t.parquet", "no parquet", "this is not a parquet file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, text, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared below
        read_table(write(tmp_path / name, text))
    assert message in str(caught.value)


def test_a_column_with_nearly_the_right_name_is_pointed_out(tmp_path):
    messages = []
    handler = logger.add(messages.append, format="{message}")
    read_table(write(tmp_path / "t.csv", "video,question,anwser\na,b,c\n"))
    logger.remove(handler)
    assert "has no column 'answer', did you mean 'anwser'?" in "".join(messages)


def test_a_folder_holds_one_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no table: put one there, such as"):
        table_file(tmp_path)
    write(tmp_path / "notes.txt", "")
    table = write(tmp_path / "t.csv", CSV)
    assert table_file(tmp_path) == table_file(table) == table
    write(tmp_path / "more.json", "[]")
    with pytest.raises(ValueError, match=r"must hold one table, got more\.json, t\.csv: move the others"):
        table_file(tmp_path)


def test_what_is_not_a_table_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no table nowhere\.csv \(working directory: "):
        table_file("nowhere.csv")
    with pytest.raises(ValueError, match=r"a table must end in \.csv, "):
        table_file(write(tmp_path / "t.xls", ""))
    assert is_table("clips.CSV")
    assert not is_table("videomme_local")


def test_a_text_may_hold_what_unicode_calls_a_new_line(tmp_path):
    question = TableQuestion(str(tmp_path / "a.mp4"), "one\u2028two\x85three")
    write_table(tmp_path / "t.jsonl", [question])
    assert read_table(tmp_path / "t.jsonl") == [question]
