"""The commands that reproduce ablations, as a shell expands them."""

import json
import re
import subprocess
from pathlib import Path

from stgridpool import build_compressor
from stgridpool.compressors import STGridPool

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reproduce.md"
CONTEXT = 32768
"""Longest prompt of LLaVA-Video-7B-Qwen2."""


def _sweeps():
    """Run the section's commands with a `python` that prints its arguments: the model's, and the compressors."""
    section = PAGE.read_text().split("## Ablations of ST-GridPool")[1].split("\n## ")[0]
    commands = "\n".join(re.findall(r"```bash\n(.*?)```", section, re.DOTALL))
    script = f"python() {{ printf '%s\\t' \"$@\"; echo; }}\n{commands}"
    printed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    for line in printed.splitlines():
        words = line.rstrip("\t").split("\t")
        assert words[:3] == ["scripts/sweep.py", "--tasks", "videomme"]
        assert words[3] == "--model_args"
        yield words[4], words[5:]


def test_every_axis_is_there_and_fits_the_checkpoint():
    presets, longest = set(), 0
    for model_args, compressors in _sweeps():
        assert model_args.startswith("pretrained=lmms-lab/LLaVA-Video-7B-Qwen2,max_frames_num=64")
        for compressor in compressors:
            name, _, options = compressor.partition(":")
            given = json.loads(options or "{}")
            count = build_compressor(name, **given).planned_count((64, 27, 27))
            assert count <= CONTEXT or "max_length=65536" in model_args, compressor
            longest = max(longest, count)
            presets.add(given.get("preset"))
    assert presets - {None} == {preset for preset in STGridPool.PRESETS if preset.startswith("ablation/")}
    assert longest == 64 * 27 * 27
