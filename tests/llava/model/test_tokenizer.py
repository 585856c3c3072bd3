"""Tokenizers that are missing, damaged, or another model's; and end tokens that end nothing."""

import json
import re
import warnings

import pytest

from llava.model.builder import load_pretrained_model

FILES = ("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json")


def rewrite(path, change):
    """Changes the object in a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def remove(folder, *names):
    for name in names:
        (folder / name).unlink()


def swap(ids, first, second):
    ids[first], ids[second] = ids[second], ids[first]


def drop_the_last(vocabulary, count):
    """Removes the ordinary tokens of the highest ids, and returns them."""
    last = sorted(vocabulary, key=vocabulary.get)[-count:]
    for token in last:
        del vocabulary[token]
    return last


def ids_of(folder):
    return json.loads((folder / "vocab.json").read_text())


@pytest.mark.parametrize(
    "gone", [(*FILES, "tokenizer_config.json"), ("tokenizer.json", "merges.txt"), ("tokenizer.json", "vocab.json")]
)
def test_no_tokenizer(copied, rejection, gone):
    folder = copied()
    remove(folder, *gone)
    assert f"{folder} holds no tokenizer: it needs tokenizer.json, or vocab.json and merges.txt;" in rejection(folder)


def test_a_pointer_in_place_of_the_merges(copied, rejection):
    folder = copied()
    remove(folder, "tokenizer.json")
    (folder / "merges.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n")
    assert f"{folder / 'merges.txt'} is a Git LFS pointer, not the file" in rejection(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", '{"model": 3}'),
        ("tokenizer.json", '{"model": {"vocab": [1]}, "added_tokens": []}'),
        ("vocab.json", '{"a": "b"}'),
        ("added_tokens.json", '{"a": null}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "a"}}}'),
    ],
)
def test_a_file_that_is_of_another_kind(copied, rejection, file, content):
    folder = copied()
    (folder / file).write_text(content)
    assert rejection(folder).startswith(f"{folder / file} does not give every token its id (")


def test_permuted_ids(copied, rejection):
    folder = copied()
    rewrite(folder / "tokenizer.json", lambda content: swap(content["model"]["vocab"], "A", "B"))
    ids = ids_of(folder)
    message = f"the token 'A' has the id {ids['B']} in tokenizer.json and {ids['A']} in vocab.json: copy all files of"
    assert f"{folder}: {message}" in rejection(folder)


def test_permuted_special_ids(copied, rejection):
    folder = copied()
    rewrite(folder / "added_tokens.json", lambda ids: swap(ids, "<|im_start|>", "<|im_end|>"))
    assert "has the id 386 in tokenizer.json and 385 in added_tokens.json" in rejection(folder)


def test_special_ids_that_are_permuted_everywhere(copied, rejection):
    """Only the end token of the configuration still tells."""
    folder = copied()

    def swap_added(content):
        first, second = content["added_tokens"][1:3]
        first["content"], second["content"] = second["content"], first["content"]

    rewrite(folder / "tokenizer.json", swap_added)
    rewrite(folder / "added_tokens.json", lambda ids: swap(ids, "<|im_start|>", "<|im_end|>"))
    rewrite(folder / "tokenizer_config.json", lambda content: swap(content["added_tokens_decoder"], "385", "386"))
    message = (
        "eos_token_id of config.json is 386, the token '<|im_start|>', which ends no answer: the tokenizer's end is"
    )
    assert f"{message} '<|im_end|>', id 385" in rejection(folder)


def test_fewer_ids_in_one_file(copied, rejection):
    folder = copied()
    rewrite(folder / "tokenizer.json", lambda content: drop_the_last(content["model"]["vocab"], 4))
    assert re.search(f"{folder}: no tokenizer can be made of tokenizer.json: .*out of vocabulary", rejection(folder))


def test_fewer_ids_without_their_merges(copied, rejection):
    folder = copied()

    def drop(content):
        model = content["model"]
        gone = set(drop_the_last(model["vocab"], 4))
        pairs = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
        model["merges"] = [pair for pair in pairs if "".join(pair) not in gone]

    rewrite(folder / "tokenizer.json", drop)
    first = min(sorted(ids_of(folder), key=ids_of(folder).get)[-4:])
    assert f"{folder}: tokenizer.json lacks 4 tokens of vocab.json, such as {first!r}" in rejection(folder)
    remove(folder, "vocab.json", "merges.txt")
    message = "the token '<|endoftext|>' has the id 384 in tokenizer.json and 380 in the tokenizer made of them"
    assert f"{folder}: {message}" in rejection(folder)  # transformers closes the gap without a word


def test_an_id_that_two_tokens_have(copied, rejection):
    folder = copied()
    remove(folder, "vocab.json")
    rewrite(folder / "tokenizer.json", lambda content: content["model"]["vocab"].update(A=33))
    message = "the ids of 387 tokens must be 0 to 386, each once; the tokenizer has no id 32 and goes up to 386"
    assert f"{folder}: {message}" in rejection(folder)


def test_a_merge_of_unknown_tokens(copied, rejection):
    folder = copied()
    remove(folder, "tokenizer.json")
    (folder / "merges.txt").write_text("#version: 0.2\nnothing known\n")
    assert f"{folder}: no tokenizer can be made of vocab.json and merges.txt: " in rejection(folder)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(
    ("end", "message"),
    [
        (5, "is 5, the token '&', which ends no answer: the tokenizer's end is '<|im_end|>', id 386"),
        ([386, 385], "is 385, the token '<|im_start|>', which ends no answer"),
        (400, "must be an id of the tokenizer, 0 to 386, got 400"),
        ([386, -1], "must be an id of the tokenizer, 0 to 386, got -1"),
    ],
)
def test_a_wrong_end_token(copied, rejection, file, end, message):
    folder = copied()
    rewrite(folder / file, lambda content: content.update(eos_token_id=end))
    assert f"{folder}: eos_token_id of {file} {message}" in rejection(folder)


def test_an_end_token_that_is_no_number(copied, rejection):
    folder = copied()
    rewrite(folder / "generation_config.json", lambda content: content.update(eos_token_id="<|im_end|>"))
    assert (
        "eos_token_id of generation_config.json must be an id of the tokenizer, 0 to 386, got '<|im_end|>'"
        in rejection(folder)
    )


def test_a_padding_token_without_an_id(copied, rejection):
    folder = copied()
    rewrite(folder / "generation_config.json", lambda content: content.update(pad_token_id=387))
    assert "pad_token_id of generation_config.json must be an id of the tokenizer, 0 to 386, got 387" in rejection(
        folder
    )


@pytest.mark.parametrize(("end", "number"), [("<|im_start|>", 385), ("<|fin|>", 387)])
def test_a_tokenizer_that_ends_otherwise(copied, rejection, end, number):
    folder = copied()
    rewrite(folder / "tokenizer_config.json", lambda content: content.update(eos_token=end))
    message = f"eos_token of tokenizer_config.json is {end!r}, id {number}, and eos_token_id of the model 384, 386"
    assert f"{folder}: {message}" in rejection(folder)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("end", [384, [386, 384], [386], None])
def test_ends_of_chat_and_base_models_load(copied, file, end):
    """Configurations made of a base model end with <|endoftext|>; the prompt's own end is found in the text."""
    folder = copied()
    rewrite(folder / file, lambda content: content.update(eos_token_id=end))
    load_pretrained_model(str(folder), None, "x", attn_implementation="sdpa")


def test_an_image_token_that_one_file_lists(copied):
    """As OneVision's repositories may, since their tokenizer was uploaded again."""
    folder = copied()
    token = {"content": "<image>", "special": True}
    token |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    rewrite(folder / "tokenizer.json", lambda content: content["added_tokens"].append({"id": 387, **token}))
    rewrite(folder / "tokenizer_config.json", lambda content: content["added_tokens_decoder"].update({"387": token}))
    tokenizer, model, _, _ = load_pretrained_model(str(folder), None, "x", attn_implementation="sdpa")
    assert len(tokenizer) == 388 == model.config.vocab_size


def test_a_released_configuration_raises_no_warning(copied):
    """Some call themselves llava, and set rope_scaling to null, which the configuration of transformers warns of."""
    folder = copied(rope_scaling=None, model_type="llava")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_pretrained_model(str(folder), None, "llava_qwen", device_map="cpu", attn_implementation="sdpa")


def test_code_of_a_tokenizer_is_not_run_even_if_the_user_would_say_yes(copied, rejection, monkeypatch):
    """transformers asks on the terminal, in the middle of a run, unless it is told."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    folder = copied()
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    rewrite(folder / "tokenizer_config.json", lambda content: content.update(own))
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Own: pass\n")
    assert "contains custom code" in rejection(folder)
    assert not (folder / "ran").exists()
