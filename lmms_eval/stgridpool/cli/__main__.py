"""Lets accelerate start the command on several processes: ``accelerate launch -m lmms_eval_stgridpool.cli ...``."""

import os
import signal

from lmms_eval_stgridpool.cli.app import main

if "TORCHELASTIC_RUN_ID" in os.environ:  # Ctrl-C ends a rank silently, as its launcher says what is kept
    signal.signal(signal.SIGINT, signal.SIG_DFL)
main()
