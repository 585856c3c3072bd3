"""How much memory loading an NVILA checkpoint takes."""

from safetensors import safe_open
from transformers import Qwen2Config, Qwen2ForCausalLM

LARGE = {"intermediate_size": 36864, "num_hidden_layers": 6, "layer_types": ["full_attention"] * 6}


def test_loading_holds_the_weights_once(copied, nvila_golden, memory_of_loading):
    """Weights come from the files of three folders; the language model's are in several files."""
    folder = copied("video")
    config = Qwen2Config.from_pretrained(folder / "llm", **LARGE)
    (folder / "llm" / "model.safetensors").unlink()
    Qwen2ForCausalLM(config).save_pretrained(folder / "llm", max_shard_size="50MB")
    files = list((folder / "llm").glob("model-*.safetensors"))
    assert len(files) > 2
    assert sum(file.stat().st_size for file in files) > 150e6
    with safe_open(files[0], "pt") as stored:
        assert {stored.get_slice(name).get_dtype() for name in stored.keys()} == {"F32"}  # noqa: SIM118
    assert 0.9 < memory_of_loading(nvila_golden / "ckpt-video", folder) < 1.4
