"""What the tests inherit from the shell that starts them."""

import signal

_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}
"""Python ignores these itself, and its children hear them again."""


def stop_inheriting():
    """Let the processes that tests start hear every signal, also where this one was started with some ignored.

    A shell without job control starts what runs in its background with SIGINT ignored, nohup with SIGHUP; programs
    pass that on. This process goes on without noticing these signals, but by a handler, which no program inherits.
    """
    for one in signal.valid_signals() - _PYTHON:
        if signal.getsignal(one) == signal.SIG_IGN:
            signal.signal(one, lambda *_: None)
