"""Golden cases that the tests of two methods share."""

import json

import pytest
import torch
from safetensors.torch import load_file

from stgridpool.evidence import AttentionReceived, ClassAttention, TowerKeys


class PruMergeCases:
    """What PruMerge's original left, mode "base" or "plus" for CLIP, "siglip" for the port of the latter."""

    def __init__(self, folder):
        self.variants = json.loads((folder / "manifest.json").read_text())["variants"]
        self.inputs = load_file(folder / "inputs.safetensors")
        self.expected = load_file(folder / "prumerge.safetensors")

    def tokens_and_evidence(self, case):
        """Tokens (T, H, W, D), and evidence from queries and keys of one head of width 32, class token first."""
        x, keys = self.inputs[f"{case}.x"].float(), self.inputs[f"{case}.k"].float()
        side = int(x.shape[1] ** 0.5)
        if f"{case}.q" in self.inputs:
            attention = (self.inputs[f"{case}.q"].float() @ keys.mT / 32**0.5).softmax(-1).mean(1)
            of_keys, need = TowerKeys(joined=True), AttentionReceived(joined=True)
        else:
            attention = (self.inputs[f"{case}.q_cls"].float()[:, None] @ keys.mT / 32**0.5).softmax(-1)[:, 0, 1:]
            keys, of_keys, need = keys[:, 1:], TowerKeys(0, joined=True), ClassAttention(0, joined=True)
        return x.unflatten(1, (side, side)), {need: attention.flatten(), of_keys: keys.flatten(0, 1)}

    def compare(self, method, variant):
        """Compare; centres are in the original's order, the extra token last, ours in the order of their places."""
        tokens, evidence = self.tokens_and_evidence(variant["case"])
        out, plan = method(tokens, evidence)
        name, frames = f"{variant['case']}.{variant['tag']}", variant["T"]
        assert len(out) == frames * variant["tokens_out"]
        assert method.planned_count(tokens.shape[:3]) in (len(out), None)
        centres = self.expected[f"{name}.idx"].long()  # (T, k)
        attention = next(value for value in evidence.values() if value.dim() == 1)
        left = attention.view(frames, -1).scatter(1, centres, -1)
        heaviest = left.argmax(1, keepdim=True).where(left.amax(1, keepdim=True) >= 0, 0)
        places, order = torch.cat([centres, heaviest], 1).sort(dim=1, stable=True)
        assert plan.anchor.tolist() == (places + torch.arange(frames)[:, None] * left.shape[1]).flatten().tolist()
        prints = torch.stack([out.sum(1), out @ (torch.arange(32) / 32)], 1)
        for kind, values, atol in (("feat_fp", prints, 2e-3), ("features", out, 2e-4)):
            if f"{name}.{kind}" in self.expected:
                wanted = self.expected[f"{name}.{kind}"]
                wanted = wanted.gather(1, order[:, :, None].expand_as(wanted))
                torch.testing.assert_close(values, wanted.flatten(0, 1), atol=atol, rtol=0)


@pytest.fixture(scope="session")
def prumerge_cases(golden):
    """PruMerge's golden numbers."""
    return PruMergeCases(golden / "methods" / "prumerge")
