r"""Fill a feature cache ahead of time, so that evaluations neither decode nor encode.

The videos are those of tasks, and files, folders of files, folders of pictures, and lists (.txt, a path per line).
Features that are there already stay. Several processes share the work:

  accelerate launch --num_processes 8 scripts/extract_features.py --tasks videomme \
    --model_args pretrained=lmms-lab/LLaVA-Video-7B-Qwen2,max_frames_num=64,feature_cache=features

Evaluations find the features with the same --model_args, whatever their compressor, unless it asks the vision tower for
more: then name it here, too, and what it asks for is kept as well. Checkpoints of all formats work, native models of
transformers among them. Ends with status 1 if a video cannot be read, or its features are not finite.
"""

import argparse
import sys

from lmms_eval_stgridpool.manifest import exit_without_own_llava

exit_without_own_llava()  # before the imports that would fail

from lmms_eval_stgridpool.kept.paths import path_argument
from lmms_eval_stgridpool.videos.extraction import extract_all


def main() -> None:
    """Parse the command line and encode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=path_argument, nargs="*", help="videos, folders, lists")
    parser.add_argument("--tasks", help="names of tasks, separated by commas")
    parser.add_argument("--model_args", required=True, help="those of the evaluation, with feature_cache=FOLDER")
    parser.add_argument("--include_path", type=path_argument, help="folder of further tasks")
    given = parser.parse_args()
    tasks = given.tasks.split(",") if given.tasks else []
    try:
        found = extract_all(given.paths, tasks, given.model_args, [given.include_path] if given.include_path else [])
    except ValueError as error:
        parser.error(str(error))
    if found.is_first:
        print(*found.failures, sep="\n", end="\n" * bool(found.failures), file=sys.stderr)
        print(found)
    sys.exit(bool(found.failures))


if __name__ == "__main__":
    main()
