"""Batches of prompts, against the original code."""

import json

import pytest
import torch
from safetensors.torch import load_file

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.nvila.tokenizer import VIDEO_TOKEN


@pytest.fixture(scope="module")
def batch(nvila_golden):
    return load_file(nvila_golden / "batch.safetensors")


@pytest.fixture(scope="module")
def prepared(nvila_golden, batch, checkpoints, pixels):
    """Function that returns embeddings, mask and labels of the three rows, or of the first alone."""
    case = json.loads((nvila_golden / "batch_cases.json").read_text())
    assert case["media"] == {"video": ["frames_a[0:8]"], "image": ["frames_a[3]"]}
    checkpoint = checkpoints["video"]
    media = torch.tensor([checkpoint.tokenizer.convert_tokens_to_ids(token) for token in ("<image>", VIDEO_TOKEN)])
    ids, mask = batch["input_ids"], batch["attention_mask_in"]
    ids = ids.masked_fill(torch.isin(ids, media), IMAGE_TOKEN_INDEX)
    visuals = [pixels("video", "frames_a", slice(0, 8)), pixels("video", "frames_a", [3])]
    visuals.append(visuals[1])  # a row without media consumes a dummy, as in LLaVA-NeXT

    def prepare(side, rows=3):
        given = (ids[:rows], None, mask[:rows], None, ids[:rows], visuals[:rows], ["video", "image", "image"][:rows])
        with torch.no_grad():
            _, _, real, _, embeds, labels = checkpoint.model.prepare_inputs_labels_for_multimodal(
                *given, padding_side=side
            )
        return embeds, real, labels

    return prepare


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_a_padded_batch(batch, prepared, checkpoints, side):
    embeds, mask, labels = prepared(side)
    torch.testing.assert_close(embeds, batch[f"{side}.inputs_embeds"], rtol=0, atol=1e-4)
    assert torch.equal(mask, batch[f"{side}.attention_mask"])
    assert torch.equal(labels, batch[f"{side}.labels"])
    assert (labels == IGNORE_INDEX).sum() > 0
    logits = checkpoints["video"].model(inputs_embeds=embeds, attention_mask=mask.long()).logits
    last = [int(row.nonzero().max()) for row in mask]
    torch.testing.assert_close(logits[range(3), last], batch[f"{side}.logits_last_real"], rtol=0, atol=1e-3)


def test_truncation(batch, prepared, checkpoints, settings):
    with settings(checkpoints["video"].model.config, tokenizer_model_max_length=40):
        embeds, _, _ = prepared("right", rows=1)
    torch.testing.assert_close(embeds, batch["truncated_40.inputs_embeds"], rtol=0, atol=1e-4)
