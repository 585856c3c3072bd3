"""Convert a checkpoint of LLaVA-OneVision or LLaVA-Video into transformers' native format, or back.

The direction follows from the checkpoint: one in LLaVA-NeXT's format becomes a LlavaOnevisionForConditionalGeneration
with processor, tokenizer and chat template, and such a one becomes a checkpoint in LLaVA-NeXT's format. Weights are
copied bit for bit, file by file, in little memory. Then both models answer three prompts, which takes four bytes per
weight; --no-verify leaves that out. The new folder appears only when it is complete.

  python scripts/convert_checkpoint.py lmms-lab/LLaVA-Video-7B-Qwen2 llava-video-7b-native
"""

import argparse
import signal
import sys

from llava.conversion.convert import convert
from lmms_eval_stgridpool.kept.paths import path_argument


def main() -> None:
    """Parse the command line, convert, and print what the other format cannot express."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder or hub name of the checkpoint")
    parser.add_argument("target", type=path_argument, help="the new folder")
    parser.add_argument("--no-verify", action="store_true", help="do not compare the answers of both models")
    parser.add_argument("--device", default="cpu", help="where the models answer (default cpu)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that nothing half-written stays
    try:
        notes = convert(arguments.source, arguments.target, not arguments.no_verify, arguments.device)
    except ValueError as error:
        sys.exit(f"error: {error}")
    for note in notes:
        print(f"- {note}")
    answers = "not compared" if arguments.no_verify else "equal to the original's"
    print(f"{arguments.target}: written; greedy answers {answers}")


if __name__ == "__main__":
    main()
