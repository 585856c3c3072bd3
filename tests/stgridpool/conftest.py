"""Matrices written out, and a language model small enough to be called layer by layer."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from stgridpool import Plan
from stgridpool.rows import Rows


@pytest.fixture(scope="session")
def make_rows():
    """Function that makes `Rows` from lists of (source, weight) pairs, one list for each row."""

    def make(*rows: list[tuple[int, float]]) -> Rows:
        flat = [pair for row in rows for pair in row]
        offsets = torch.tensor([0, *torch.tensor([len(row) for row in rows]).cumsum(0).tolist()])
        return Rows(torch.tensor([s for s, _ in flat], dtype=torch.int64), offsets, torch.tensor([w for _, w in flat]))

    return make


@pytest.fixture(scope="session")
def matrix():
    """Function that writes `Rows` out, entry by entry, as a matrix (R, number of columns)."""
    return _matrix


@pytest.fixture(scope="session")
def dense():
    """Function that writes a plan out as a matrix (N, S): made rows level by level, then the output."""

    def write_out(plan: Plan) -> torch.Tensor:
        known = torch.eye(plan.num_sources)
        for level in plan.made:
            known = torch.cat([known, _matrix(level, len(known)) @ known])
        return _matrix(plan.rows, len(known)) @ known

    return write_out


def _matrix(rows: Rows, num_columns: int) -> torch.Tensor:
    out = torch.zeros(len(rows), num_columns)
    for row in range(len(rows)):
        for entry in range(int(rows.offsets[row]), int(rows.offsets[row + 1])):
            out[row, rows.sources[entry]] += rows.weights[entry]
    return out


@pytest.fixture(scope="session")
def make_decoder():
    """Function that makes a Qwen2 of width 32 with random weights, whose answers depend on all of the prompt."""

    def make(num_layers, **settings):
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=97,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=num_layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            pad_token_id=0,
            **{"eos_token_id": None} | settings,
        )
        model = Qwen2ForCausalLM(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" not in name:
                    parameter.mul_(6)
        return model

    return make
