"""Lets accelerate start the command on several processes: ``accelerate launch -m lmms_eval_stgridpool.cli ...``."""

from lmms_eval_stgridpool.cli.app import main

main()
