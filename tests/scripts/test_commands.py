"""The shell commands parse, explain themselves, and reject what they do not know."""

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SHELL_SCRIPTS = sorted((REPOSITORY / "scripts").glob("*.sh"))


def run(*command, cwd=REPOSITORY):
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", [*SHELL_SCRIPTS, REPOSITORY / ".ci" / "run"], ids=lambda path: path.name)
def test_shell_scripts_parse_and_stop_at_errors(script):
    assert run("bash", "-n", script).returncode == 0
    assert re.search(r"^set -e?uo pipefail$", script.read_text(), re.MULTILINE)


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_help_is_printed_and_nothing_is_done(script, tmp_path):
    shown = run("bash", script, "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"Usage: bash scripts/{script.name}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Usage:"),
        (("videomme", "--limit", "3"), "unknown option --limit; options of lmms-eval go behind --"),
        (("--output",), "--output needs a folder"),
    ],
)
def test_evaluate_rejects_what_it_does_not_know(words, message):
    answer = run("bash", REPOSITORY / "scripts" / "evaluate.sh", *words)
    assert answer.returncode == 2
    assert message in answer.stderr
