"""A sub-command for tests of the table."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--code", type=int)


def run(arguments: argparse.Namespace) -> int:
    code: int = arguments.code
    return code
