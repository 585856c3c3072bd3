"""A choice for the miniature's clips, from the files to the recommendation."""

import json

import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from lmms_eval_stgridpool.cli.app import app


@pytest.mark.slow
@pytest.mark.usefixtures("_known_stock_tasks")
def test_a_setting_is_chosen_for_the_miniature(workplace, miniature, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [table] = (workplace / "data" / "videomme").glob("*.parquet")
    rows = [
        {"video": str(workplace / "data" / "videomme" / "data" / row["videoID"]), **row, "answer": answer}
        for number, row in enumerate(pyarrow.parquet.read_table(table).to_pylist())
        for answer in [row["answer"] if number % 2 else ""]
    ]
    (tmp_path / "clips.json").write_text(json.dumps(rows))
    words = ["clips.json", "--checkpoint", miniature, "--frames", 4, "-m", "random", "--retention", 0.5, "-o", "out"]
    result = CliRunner().invoke(app, ["choose", *map(str, words), "--model_args", "device=cpu", "--json"])
    assert result.exception is None, result.exception
    own, half = json.loads((tmp_path / "out" / "choice.json").read_text())["settings"]
    assert (own["run"], half["run"]) == ("uncompressed", "random@0.5")
    assert (own["accuracy"]["count"], own["agreement"]["count"], own["agreement"]["value"]) == (8, 8, 1.0)
    assert half["model_args"] == 'compressor=random,compressor_args={"retention":0.5}'
    assert half["cache_mb"]["value"] < own["cache_mb"]["value"]
    assert half["seconds"]["value"] > 0
