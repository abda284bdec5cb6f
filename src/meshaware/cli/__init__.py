"""
The command `meshaware`.

    commands      the table of sub-commands, and the way to the one that is asked for
    exits         exit codes, and errors that have one
    terminal      text that is safe to print
    heard         what is warned of on the way
    budget        meshaware budget: which route a call takes, and how long it may last
                  ... where its routes come from: sources.py;  all that is found: answer.py
                  ... as JSON: shape.py;  as text: words.py, bars.py
    wait          meshaware wait: until the sidecar takes calls
    run           meshaware run: a command as a container's entry point
                  ... its signals and its end: child.py;  the sidecar after it: quit.py

A sub-command is a module that is loaded when it is asked for, with `add_arguments(parser)` and `run(arguments)`.
"""

from __future__ import annotations

from meshaware.cli.commands import main

__all__ = ["main"]
