"""The page on adding a method, followed literally: its files written, its command run."""

import re
import sys
from pathlib import Path

import pytest
import torch

from stgridpool import build_compressor
from stgridpool.evidence import Question

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "add_a_method.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with the files of the page, on the path while the module's tests run."""
    folder = tmp_path_factory.mktemp("methods")
    for name, code in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
        (folder / name).write_text(code)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def test_the_contract_holds_for_all_three(folder, run_python):
    command = re.search(r"^python (-m pytest --pyargs .*)$", PAGE, flags=re.MULTILINE).group(1)
    assert {path.stem for path in folder.glob("*.py")} == {"outliers", "twins", "relevant"}
    run = run_python(*command.split(), "-q", cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    passed = int(re.search(r"(\d+) passed", run.stdout).group(1))
    assert passed == 3 * 10 - 1  # the merger takes no budget


def test_a_pruner_keeps_what_is_unlike_the_rest(folder):
    maps = torch.zeros(2, 2, 2, 3)
    maps[0, 1, 0] = 5
    maps[1, 0, 1] = -5
    assert build_compressor("outliers:Outliers", tokens_per_frame=1)(maps).plan.kept().tolist() == [2, 5]


def test_a_merger_averages_two_frames(folder):
    maps = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 2, 2, 1)
    out = build_compressor("twins:Twins")(maps).tokens
    assert out.flatten().tolist() == [0.5] * 4 + [2.5] * 4 + [4.0] * 4


def test_another_question_keeps_other_tokens(folder):
    method = build_compressor("relevant:Relevant", tokens=1, scope="video")
    assert method.query_aware
    maps = torch.eye(4).view(1, 2, 2, 4)
    for token in range(4):
        evidence = {Question("decoder"): torch.eye(4)[token : token + 1]}
        assert method(maps, evidence).plan.kept().tolist() == [token]
