"""Lets accelerate start the command on several processes: ``accelerate launch -m lmms_eval_stgridpool.cli ...``."""

import signal

from lmms_eval_stgridpool.cli.app import main
from lmms_eval_stgridpool.cli.launching import is_launched

if is_launched():  # Ctrl-C ends a rank silently, as its launcher says what is kept
    signal.signal(signal.SIGINT, signal.SIG_DFL)
main()
