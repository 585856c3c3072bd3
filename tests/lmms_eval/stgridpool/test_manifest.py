import subprocess
import sys
from pathlib import Path

import lmms_eval
from lmms_eval.models import MODEL_REGISTRY_V2

from lmms_eval_stgridpool.llava_video import LlavaVideo

REPOSITORY = Path(__file__).resolve().parents[3]


def test_lmms_eval_finds_the_model_by_its_entry_point():
    assert MODEL_REGISTRY_V2.get_model_class("llava_video") is LlavaVideo
    assert MODEL_REGISTRY_V2.resolve("llava_video").model_type == "simple"


def test_loading_the_manifest_loads_nothing_heavy():
    names = "('torch', 'lmms_eval', 'llava', 'stgridpool')"
    code = f"import sys, lmms_eval_stgridpool.manifest; print([name for name in {names} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_installed_lmms_eval_is_not_hidden_by_our_folder():
    assert lmms_eval.__file__ is not None
    assert (REPOSITORY / "lmms_eval") not in Path(lmms_eval.__file__).parents
    assert not (REPOSITORY / "lmms_eval" / "__init__.py").exists()
    assert not list((REPOSITORY / "tests").rglob("__init__.py"))
    code = "import lmms_eval; print(lmms_eval.__file__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert result.stdout.strip() == lmms_eval.__file__
