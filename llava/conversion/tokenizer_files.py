"""The files of a tokenizer with placeholders for images and videos, and without them again.

Native models mark the place of each visual token with an id. Qwen2's embeddings have rows that no token uses; the
placeholders take the first of them. Nothing else in the files changes.
"""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from stgridpool.checkpoint_files import read_json

PLACEHOLDERS = ("<image>", "<video>")
_WITH_TOKENS = ("tokenizer.json", "added_tokens.json", "tokenizer_config.json", "special_tokens_map.json")
_FLAGS = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}


def ids_to_add(plain: PreTrainedTokenizerBase, complete: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the ids, ascending, of the tokens that the native tokenizer has and the files of the original one lack.

    Args:
        plain: The tokenizer as its files describe it.
        complete: The same with the image tokens that the checkpoint's configuration requires.
    """
    added = {token: number for token, number in complete.get_vocab().items() if number >= len(plain)}
    for token in PLACEHOLDERS:
        if token not in complete.get_vocab():
            added[token] = len(plain) + len(added)
    return dict(sorted(added.items(), key=lambda entry: entry[1]))


def write_with(source: Path, target: Path, plain: PreTrainedTokenizerBase, added: Mapping[str, int]) -> None:
    """Copy the files of a tokenizer to `target`, with further tokens.

    Args:
        source: Folder of the original checkpoint.
        target: Folder of the native one.
        plain: The tokenizer that the files describe, for a checkpoint without tokenizer.json.
        added: Result of `ids_to_add`.
    """
    if not (source / "tokenizer.json").is_file():
        plain.save_pretrained(target)
    _copy(source, target)
    for name, add in _ADD.items():
        if (target / name).is_file():
            write_json(target / name, add(read_json(target / name), added))


def write_without(source: Path, target: Path, length: int) -> None:
    """Copy the files of a tokenizer to `target`, without its tokens from id `length` on."""
    tokens = read_json(source / "tokenizer.json").get("added_tokens", [])
    removed = {token["content"] for token in tokens if token["id"] >= length}
    _copy(source, target)
    for name in _WITH_TOKENS:
        if (target / name).is_file():
            write_json(target / name, _without(read_json(target / name), removed))


def length_without_placeholders(folder: Path) -> int:
    """Return the number of ids of a native tokenizer that come before its placeholders."""
    content = read_json(folder / "tokenizer.json")
    ids = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
    length = 1 + int(max([*content["model"]["vocab"].values(), *ids.values()]))
    for number in sorted((ids[token] for token in PLACEHOLDERS if token in ids), reverse=True):
        length -= number == length - 1
    return length


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as JSON, as the files of released checkpoints are laid out."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    for name in ("merges.txt", "vocab.json", *_WITH_TOKENS):
        if (source / name).is_file():
            (target / name).write_bytes((source / name).read_bytes())


def _add_tokens(content: dict[str, Any], added: Mapping[str, int]) -> dict[str, Any]:
    others = [token for token in content.get("added_tokens", []) if token["content"] not in added]
    more = [{"id": number, "content": token, **_FLAGS} for token, number in added.items()]
    return {**content, "added_tokens": [*others, *more]}


def _add_ids(content: dict[str, Any], added: Mapping[str, int]) -> dict[str, Any]:
    return {**content, **added}


def _add_settings(content: dict[str, Any], added: Mapping[str, int]) -> dict[str, Any]:
    more = {str(number): {"content": token, **_FLAGS} for token, number in added.items()}
    return {**content, "added_tokens_decoder": {**content.get("added_tokens_decoder", {}), **more}}


_ADD: dict[str, Callable[[dict[str, Any], Mapping[str, int]], dict[str, Any]]] = {
    "tokenizer.json": _add_tokens,
    "added_tokens.json": _add_ids,
    "tokenizer_config.json": _add_settings,
}


def _without(content: Mapping[str, Any], removed: Collection[str]) -> dict[str, Any]:
    """Drop tokens from an object and from the lists and objects in it."""
    kept: dict[str, Any] = {}
    for name, value in content.items():
        if name in removed or _names_one_of(removed, value):
            continue
        if isinstance(value, list):
            kept[name] = [entry for entry in value if not _names_one_of(removed, entry)]
        elif isinstance(value, dict):
            kept[name] = {key: entry for key, entry in value.items() if not _names_one_of(removed, entry)}
        else:
            kept[name] = value
    return kept


def _names_one_of(tokens: Collection[str], value: Any) -> bool:
    text = value.get("content") if isinstance(value, dict) else value
    return isinstance(text, str) and text in tokens
