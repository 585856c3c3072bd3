"""Measure what this project claims about speed and memory."""

import argparse

from benchmarking import decode, evaluation, evidence, layouts, native, peer, pooling, reading


def main() -> None:
    """Parse the command line and run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (decode, evaluation, evidence, layouts, native, peer, pooling):
        module.add_parser(commands)
    reading.add_parsers(commands)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
