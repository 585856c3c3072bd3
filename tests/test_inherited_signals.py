"""The tests' processes hear signals, whatever the shell ignores that starts the tests."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD, signal.SIGPIPE)
SHARED = str(Path(__file__).with_name("shared"))
PROGRAM = f"""
import os, signal, subprocess, sys
sys.path.insert(0, {SHARED!r})
from inherited_signals import stop_inheriting
{{begin}}
subprocess.run([sys.executable, "-c", '''import signal
print([signal.getsignal(one) == signal.SIG_IGN for one in {list(map(int, IGNORED))}])'''])
print(subprocess.run([sys.executable, "-c", "exit(3)"]).returncode, flush=True)
for one in {list(map(int, IGNORED))}:
    os.kill(os.getpid(), one)
print("alive")
"""


def _ignore():
    for one in IGNORED:
        signal.signal(one, signal.SIG_IGN)


# Of SIGPIPE, Python says so itself: it starts with it ignored, and gives it back to what it starts.
@pytest.mark.parametrize(
    ("begin", "ignored", "status"),
    [("", [True] * 5 + [True], 0), ("stop_inheriting()", [False] * 5 + [True], 3)],
)
def test_programs_do_not_inherit_what_a_shell_ignores(begin, ignored, status):
    command = [sys.executable, "-c", PROGRAM.format(begin=begin)]
    done = subprocess.run(command, preexec_fn=_ignore, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(ignored), str(status), "alive"]
