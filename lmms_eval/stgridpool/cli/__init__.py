"""The command ``stgridpool``.

It runs models of `llava` and evaluations of lmms-eval, which the package `stgridpool` must not import, so it belongs to
the plug-in, the topmost of the three packages that are installed together. Modules of commands import what is heavy
when the command runs: help and shell completion need none of it.
"""
