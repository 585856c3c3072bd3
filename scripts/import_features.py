r"""Put features that STTM's code extracted into the feature cache, to evaluate without the videos.

FEATURES is a folder such as .../llava-video-7b-qwen2-video-only/F-128_fps-1 with features/*.pt and metadata/*.pkl;
VIDEOS is the folder in which the task looks for its videos, which need not exist:

  python scripts/import_features.py FEATURES data/videomme/data --model_args \
    pretrained=CHECKPOINT,max_frames_num=128,fps=1,torch_dtype=bfloat16,feature_cache=features

An evaluation with the same --model_args and features_of_missing_videos=True then finds them. Methods that ask the
vision tower for more than features cannot use them. Tensors are loaded with weights_only, and metadata only if it is
plain data, so that no file can run code. Ends with status 1 if a file was not imported.
"""

import argparse
import sys

from lmms_eval_stgridpool.manifest import exit_without_own_llava

exit_without_own_llava()  # before the imports that would fail

from lmms_eval_stgridpool.kept.paths import path_argument
from lmms_eval_stgridpool.videos.importing import import_all


def main() -> None:
    """Parse the command line and import."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=path_argument, help="STTM's folder, such as F-128_fps-1")
    parser.add_argument("videos", type=path_argument, help="folder in which the task looks for VID.mp4")
    parser.add_argument("--model_args", required=True, help="those of the evaluation, with feature_cache=FOLDER")
    given = parser.parse_args()
    try:
        found = import_all(given.features, given.videos, given.model_args)
    except ValueError as error:
        parser.error(str(error))
    print(*found.failures, sep="\n", end="\n" * bool(found.failures), file=sys.stderr)
    print(found)
    sys.exit(bool(found.failures))


if __name__ == "__main__":
    main()
