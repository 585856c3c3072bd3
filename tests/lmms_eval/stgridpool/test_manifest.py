import subprocess
import sys
from pathlib import Path

import lmms_eval
import pytest
from lmms_eval.models import MODEL_REGISTRY_V2

from lmms_eval_stgridpool import manifest
from lmms_eval_stgridpool.llava_video import LlavaVideo
from lmms_eval_stgridpool.manifest import check_llava

REPOSITORY = Path(__file__).resolve().parents[3]


def test_lmms_eval_finds_the_model_by_its_entry_point():
    assert MODEL_REGISTRY_V2.get_model_class("llava_video") is LlavaVideo
    assert MODEL_REGISTRY_V2.resolve("llava_video").model_type == "simple"


def test_loading_the_manifest_loads_nothing_heavy():
    names = "('torch', 'lmms_eval', 'llava', 'stgridpool')"
    code = f"import sys, lmms_eval_stgridpool.manifest; print([name for name in {names} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_another_package_of_the_name_llava_is_named(tmp_path, monkeypatch):
    check_llava()
    foreign = tmp_path / "LLaVA-NeXT" / "llava"
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(foreign.parent))
    for name in [name for name in sys.modules if name.partition(".")[0] == "llava"]:
        monkeypatch.delitem(sys.modules, name)
    own = REPOSITORY / "llava"
    with pytest.raises(
        ImportError, match=f"finds {foreign}, another project's package, but this plug-in needs {own}:"
    ) as error:
        MODEL_REGISTRY_V2.get_model_class("llava_video")
    assert f"remove {foreign.parent} from PYTHONPATH" in str(error.value)
    with pytest.raises(AttributeError, match="no attribute 'LlavaVideos'"):
        getattr(manifest, "LlavaVideos")  # noqa: B009


def test_the_installed_lmms_eval_is_not_hidden_by_our_folder():
    assert lmms_eval.__file__ is not None
    assert (REPOSITORY / "lmms_eval") not in Path(lmms_eval.__file__).parents
    assert not (REPOSITORY / "lmms_eval" / "__init__.py").exists()
    assert not list((REPOSITORY / "tests").rglob("__init__.py"))
    code = "import lmms_eval; print(lmms_eval.__file__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert result.stdout.strip() == lmms_eval.__file__


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        (("--model", "llava_video", "--tasks", "x"), True),
        (("--model=llava_video",), True),
        (("--model", "llava_vid"), False),
    ],
)
def test_a_run_of_our_model_ends_with_its_launcher_from_the_first_moment_on(monkeypatch, words, ends):
    calls = []
    monkeypatch.setattr(manifest, "end_with_launcher", lambda: calls.append(words))
    monkeypatch.setattr(sys, "argv", ["lmms_eval", *words])
    manifest.manifests()
    assert calls == [words] * ends
