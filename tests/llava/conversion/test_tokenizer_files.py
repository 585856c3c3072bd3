"""Placeholders take the first ids that no token has, and leave the files as they were on the way back."""

import json

import pytest

from llava.conversion.convert import convert
from llava.conversion.tokenizer_files import length_without_placeholders
from llava.model.tokenizer import load_tokenizer


def ids_of(folder):
    config = json.loads((folder / "config.json").read_text())
    return config["image_token_index"], config["video_token_index"], config["llava_tokenizer_length"]


def token(number, content):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **flags, "special": True}


def test_a_tokenizer_that_knows_images_keeps_its_id(copied, tmp_path):
    folder = copied()
    files = {name: json.loads((folder / name).read_text()) for name in ("tokenizer.json", "tokenizer_config.json")}
    files["tokenizer.json"]["added_tokens"].append(token(387, "<image>"))
    files["tokenizer_config.json"]["added_tokens_decoder"]["387"] = {
        name: value for name, value in token(387, "<image>").items() if name != "id"
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    convert(str(folder), tmp_path / "native", verify=False)
    assert ids_of(tmp_path / "native") == (387, 388, 388)
    convert(str(tmp_path / "native"), tmp_path / "back", verify=False)
    for name, content in files.items():
        assert json.loads((tmp_path / "back" / name).read_text()) == content, name


def test_tokens_that_the_loader_adds_come_first(copied, tmp_path):
    """mm_use_im_patch_token adds one; the files do not hold it."""
    folder = copied(mm_use_im_patch_token=True)
    convert(str(folder), tmp_path / "native")
    assert ids_of(tmp_path / "native") == (388, 389, 387)
    convert(str(tmp_path / "native"), tmp_path / "back", verify=False)
    for name in ("tokenizer.json", "added_tokens.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / "back" / name).read_text()) == json.loads((folder / name).read_text())


def test_a_tokenizer_without_tokenizer_json(copied, tmp_path, video_checkpoint):
    folder = copied()
    (folder / "tokenizer.json").unlink()
    convert(str(folder), tmp_path / "native")
    assert ids_of(tmp_path / "native") == (387, 388, 387)
    assert length_without_placeholders(tmp_path / "native") == 387
    convert(str(tmp_path / "native"), tmp_path / "back", verify=False)
    tokenizer = load_tokenizer(tmp_path / "back", video_checkpoint.model.config)
    assert len(tokenizer) == 387


@pytest.mark.parametrize(
    ("added", "length"),
    [
        ([(387, "<image>"), (388, "<video>")], 387),
        ([(387, "<video>"), (388, "<image>")], 387),
        ([(387, "<image>"), (388, "<video>"), (389, "<more>")], 390),  # not the last ones: they stay
        ([(387, "<image>"), (388, "<more>"), (389, "<video>")], 389),
        ([], 387),
    ],
)
def test_placeholders_at_the_end_are_found(llava_golden, tmp_path, added, length):
    content = json.loads((llava_golden / "ckpt-video" / "tokenizer.json").read_text())
    content["added_tokens"] += [token(number, text) for number, text in added]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert length_without_placeholders(tmp_path) == length
