import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmms_eval_stgridpool.cli.app import app
from lmms_eval_stgridpool.reproduction import running


def invoke(*words):
    return CliRunner().invoke(app, ["reproduce", *map(str, words)])


@pytest.fixture
def numbers(monkeypatch):
    """Numbers that runs give in order, or problems; no run is started."""
    found = []

    def fake(cells, settings, start, report):
        return [
            running.Outcome(cell, "f", number, 1.0)
            if isinstance(number, float)
            else running.Outcome(cell, "f", problem=number)
            for cell, number in zip(cells, found, strict=True)
        ]

    monkeypatch.setattr(running, "run_all", fake)
    return found


def test_without_a_name_all_tables_are_listed():
    rows = json.loads(invoke("--json").stdout)
    assert {"table": "st_gridpool/ablation-kernel", "runs": 4, "source": "numbers not known here"} in rows
    assert "sttm/llava-video-7b" in invoke().stdout


def test_a_dry_run_prints_a_command_for_each_cell_and_what_to_expect(tmp_path):
    words = ("sttm/llava-video-7b", "--dry-run", "-b", "videomme", "-r", "sttm", "-o", tmp_path, "--data", "my data")
    first, *lines = invoke(*words, "max_frames_num=16").stdout.splitlines()
    assert first == "cd 'my data'"
    assert len(lines) == 2  # at 50 and at 30 %
    command, comment = lines[1].split("  # ")
    assert comment == "sttm 30 %, videomme, published: 62.3 %"
    assert command.startswith(
        "stgridpool eval videomme_sttm lmms-lab/LLaVA-Video-7B-Qwen2-Video-Only fps=1 mm_newline_position=no_token "
        "add_time_instruction=True torch_dtype=bfloat16 "
        '\'compressor_args={"preset":"llava-video-7b/videomme/30"}\' max_frames_num=16 '
        f"--compressor sttm --output {tmp_path}/sttm_30_percent-videomme-"
    )


def test_a_printed_command_has_the_words_of_the_run(tmp_path):
    """What a shell makes of the line is what is run, also where paths have blanks and quotes."""
    folder = tmp_path / "a 'quoted' folder"
    given = ("st_gridpool/main", "-b", "videomme", "-r", "st_grid", "-o", folder, "--lmms-eval", "--limit 2")
    given += ("--checkpoint", "my 'own' model", "feature_cache=my features")
    [line] = invoke(*given, "--dry-run").stdout.splitlines()
    *words, output = shlex.split(line, comments=True)
    expected = ["stgridpool", "eval", "videomme", "my 'own' model", "max_frames_num=64", "feature_cache=my features"]
    assert words == [*expected, "--compressor", "st_gridpool", "--lmms-eval", "--limit 2", "--output"]
    assert Path(output).parent == folder
    refused = invoke("st_gridpool/main", "-o", tmp_path / "it's", "--dry-run").exception
    assert str(refused).startswith("--output must have neither a comma")


def test_a_dry_run_prints_json_for_programs(tmp_path):
    words = ("st_gridpool/main", "-b", "videomme", "-r", "st_gridpool", "--data", tmp_path, "--dry-run")
    shown = invoke(*words, "--json").stdout
    [one, _] = json.loads(shown)
    assert (one["checkpoint"], one["row"], one["published"]) == ("lmms-lab/LLaVA-Video-7B-Qwen2", "st_gridpool", 64.2)
    assert one["folder"] == str(tmp_path)
    [first, line, _] = invoke(*words).stdout.splitlines()
    assert first == f"cd {tmp_path}"
    assert shlex.split(line, comments=True) == one["command"]


def test_our_numbers_stand_beside_the_published_ones(numbers):
    numbers += [60.0, 64.0]
    shown = invoke("st_gridpool/main", "--checkpoint", "a/LLaVA-Video-7B-Qwen2", "-b", "videomme")
    assert shown.exit_code == 0
    title = "a/LLaVA-Video-7B-Qwen2 in place of lmms-lab/LLaVA-Video-7B-Qwen2: accuracy in %, ours / published"
    assert shown.stdout.splitlines()[0] == title
    assert "60.0 ± 1.0 / 63.3 !" in shown.stdout
    assert "64.0 ± 1.0 / 64.2 " in shown.stdout
    entries = json.loads(invoke("st_gridpool/main", "--checkpoint", "nano", "-b", "videomme", "--json").stdout)
    assert [(one["cell"]["row"], one["ours"], one["differs"]) for one in entries] == [
        ("all tokens", 60.0, True),
        ("st_gridpool", 64.0, False),
    ]


def test_a_failed_run_is_told_at_the_end_and_one_for_a_server_is_explained(numbers):
    numbers += ["no score", "failed"]
    result = invoke("st_gridpool/main", "--checkpoint", "nano", "-b", "egoschema", "-o", "out")
    assert str(result.exception) == "1 of 2 runs failed, see above; start it again to resume. Runs: out"
    assert "no score / 57.3" in result.stdout
    assert "stgridpool submit" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sttm/7b"], "there is no table 'sttm/7b'"),
        (["st_gridpool/main", "-b", "vidomme"], "the table has no benchmark 'vidomme', but videomme, longvideobench"),
        (["st_gridpool/main", "-r", "nsp"], "no row that begins with 'nsp', but all tokens, st_gridpool"),
        (["st_gridpool/main", "fast"], "arguments of the model are KEY=VALUE, got 'fast'"),
    ],
)
def test_what_does_not_exist_is_named(words, message):
    assert message in str(invoke(*words, "--dry-run").exception)
