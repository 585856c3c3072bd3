"""A user's own table of videos and questions: CSV, TSV, JSON, JSON lines or parquet.

The columns ``video`` and ``question`` must be there; ``options``, ``answer`` and ``category`` may be. Other columns are
left alone.
"""

import csv
import json
import os
import re
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from stgridpool.suggestion import suggestion

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
REQUIRED = ("video", "question")
OPTIONAL = ("options", "answer", "category")
VIDEO_SUFFIXES = (".mp4", ".MP4", ".mkv", ".webm", ".avi", ".mov")
_LETTERED = re.compile(r"([A-Z])[.)]\s+(.+)", re.DOTALL)

Row = dict[str, Any]


@dataclass(frozen=True)
class TableQuestion:
    """One row of a table.

    Attributes:
        video: Path of the video; where there is no such file, the path where it was expected.
        question: The question.
        options: The answers to choose from, without letters; empty where any answer may be given.
        answer: The right answer: a letter if there are options, else a text; "" if it is not known.
        category: The kind of question, for scores of their own; "" for none.
    """

    video: str
    question: str
    options: tuple[str, ...] = ()
    answer: str = ""
    category: str = ""


def is_table(name: str) -> bool:
    """Tell whether a name is the path of a table rather than the name of a task."""
    return Path(name).suffix.lower() in SUFFIXES


def table_file(place: str | Path) -> Path:
    """Return the table at a path: the file itself, or the only table in a folder.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If a folder holds several, or the file has another suffix.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if len(found) > 1:
            raise ValueError(
                f"{path} must hold one table, got {', '.join(file.name for file in found)}: move the others"
            )
        if not found:
            raise FileNotFoundError(f"{path} holds no table: put one there, such as {path / 'table.csv'}")
        return found[0]
    if not path.is_file():
        raise FileNotFoundError(f"there is no table {place} (working directory: {Path.cwd()})")
    if not is_table(path.name):
        raise ValueError(f"a table must end in {', '.join(SUFFIXES)}, got {path}")
    return path


def read_table(path: Path, default_questions: Sequence[str] = ()) -> list[TableQuestion]:
    """Read a table; videos are named relative to its folder, with or without their suffix.

    Args:
        path: The table, see `table_file`.
        default_questions: Asked about each video if the table has no column ``question``.

    Raises:
        ValueError: If it cannot be read, has no rows, lacks a column or a value, or an answer is none of the options;
            the message names the row, counted from 1.
    """
    rows = _rows(path)
    if not rows:
        raise ValueError(f"{path} has no rows")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if default_questions and "question" not in columns:
        rows = [row | {"question": question} for row in rows for question in default_questions]
        columns.append("question")
    for column in REQUIRED:
        if column not in columns:
            raise ValueError(f"{path} has no column {column!r}{suggestion(column, columns)}")
    for column in OPTIONAL:
        guess = suggestion(column, [one for one in columns if one not in (*REQUIRED, *OPTIONAL)])
        if column not in columns and guess.startswith(","):
            logger.warning(f"{path} has no column {column!r}{guess}")
    return [_question(row, path.parent, f"{path}, row {number}") for number, row in enumerate(rows, 1)]


def write_table(path: Path, questions: Sequence[TableQuestion]) -> None:
    """Write a table as JSON lines; any number of ranks may do this at once.

    Args:
        path: The file.
        questions: Its rows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    lines = (json.dumps(asdict(question), ensure_ascii=False) + "\n" for question in questions)
    unfinished.write_text("".join(lines), encoding="utf-8")
    unfinished.replace(path)


def find_video(folder: Path, name: str) -> Path:
    """Return the path of a video that a table names; where there is no such file, the path where it was expected."""
    path = folder / Path(name).expanduser()
    candidates = [path, *(path.with_name(f"{path.name}{suffix}") for suffix in VIDEO_SUFFIXES)]
    return next((candidate for candidate in candidates if candidate.exists()), path)


def _rows(path: Path) -> list[Row]:
    """Read the rows of a table as they are.

    Raises:
        ValueError: If the file is not what its suffix says.
    """
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            return _comma_separated(path, "\t" if path.suffix.lower() == ".tsv" else ",")
        if path.suffix.lower() == ".parquet":
            from pyarrow import parquet  # noqa: PLC0415 - takes a second

            rows: list[Row] = parquet.read_table(path).to_pylist()
            return rows
        text = path.read_text(encoding="utf-8-sig")
        whole = path.suffix.lower() == ".json" and text.lstrip().startswith("[")
        rows = json.loads(text) if whole else [json.loads(line) for line in text.split("\n") if line.strip()]
    except (csv.Error, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, row {number} must be an object with column names, got {row!r}")
    return rows


def _comma_separated(path: Path, delimiter: str) -> list[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows: list[Row] = list(csv.DictReader(file, delimiter=delimiter))
    for number, row in enumerate(rows, 1):
        if None in row:
            raise ValueError(f"{path}, row {number} has more cells than columns: put text with {delimiter!r} in quotes")
    return rows


def _question(row: Row, folder: Path, where: str) -> TableQuestion:
    values = {column: _text(row.get(column)) for column in (*REQUIRED, "answer", "category")}
    for column in REQUIRED:
        if not values[column]:
            raise ValueError(f"{where} has no {column}")
    options = _options(row.get("options"), where)
    if len(options) == 1 or len(set(options)) < len(options) or len(options) > len(string.ascii_uppercase):
        raise ValueError(f"{where}: options must be 2 to 26, all different, got {list(options)}")
    answer = _letter(values["answer"], options, where) if options and values["answer"] else values["answer"]
    video = str(find_video(folder, values["video"]))
    return TableQuestion(video, values["question"], options, answer, values["category"])


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _options(value: object, where: str) -> tuple[str, ...]:
    """Read options: a list, the text of a JSON list, or texts separated by ``|``; leading letters are removed."""
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: options are not a JSON list: {error}") from error
    elif isinstance(value, str):
        value = value.split("|") if value.strip() else None
    if value is None:
        return ()
    if not isinstance(value, Sequence):
        raise ValueError(f"{where}: options must be a list, or texts separated by |, got {value!r}")
    texts = tuple(map(_text, value))
    lettered = [_LETTERED.fullmatch(text) for text in texts]
    letters = string.ascii_uppercase
    if all(match is not None and match[1] == letter for match, letter in zip(lettered, letters, strict=False)):
        return tuple(match[2] for match in lettered if match is not None)
    return texts


def _letter(answer: str, options: Sequence[str], where: str) -> str:
    """Return the letter of the right option, which the table names by its letter or its text."""
    letters = string.ascii_uppercase[: len(options)]
    by_text = letters[options.index(answer)] if answer in options else None
    lettered = re.fullmatch(rf"([{letters}])([.)].*)?", answer, re.DOTALL)
    by_letter = lettered[1] if lettered is not None else None
    if by_text is not None and by_letter not in (None, by_text):
        raise ValueError(
            f"{where}: the answer {answer!r} is a letter and the text of another option; give its letter only"
        )
    found = by_text or by_letter
    if found is None:
        raise ValueError(f"{where}: the answer must be one of {', '.join(letters)} or an option's text, got {answer!r}")
    return found
