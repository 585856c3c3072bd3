"""The tokenizer of a checkpoint, and checks that its files, its ids and the checkpoint's end tokens agree."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2Tokenizer

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from stgridpool.checkpoint_files import check_no_pointer, one_line, read_json

_END_TOKENS = ("<|im_end|>", "<|endoftext|>")


def load_tokenizer(folder: Path, config: Any) -> PreTrainedTokenizerBase:
    """Load the tokenizer, with the image tokens that the configuration requires.

    Args:
        folder: The checkpoint.
        config: Its configuration; `vocab_size` is the number of rows of the embeddings. Released checkpoints have more
            rows than ids.

    Raises:
        ValueError: If files are missing, damaged or contradict each other, ids have gaps or exceed the embeddings, or
            the model's end token does not end an answer.
    """
    listed = _listed_ids(folder)
    tokenizer = _read_tokenizer(folder, config)
    _check_ids(tokenizer.get_vocab(), listed, folder)
    _check_ends(tokenizer, config, folder)
    if config.mm_use_im_patch_token:
        tokenizer.add_tokens([DEFAULT_IMAGE_PATCH_TOKEN], special_tokens=True)
    if config.mm_use_im_start_end:
        tokenizer.add_tokens([DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN], special_tokens=True)
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens and the checkpoint only {config.vocab_size} "
            "embeddings"
        )
    return tokenizer


def _read_tokenizer(folder: Path, config: Any) -> PreTrainedTokenizerBase:
    from_parts = not (folder / "tokenizer.json").is_file()
    if from_parts and not all((folder / name).is_file() for name in ("vocab.json", "merges.txt")):
        raise ValueError(
            f"{folder} holds no tokenizer: it needs tokenizer.json, or vocab.json and merges.txt; copy them from the "
            "checkpoint that this one was made of"
        )
    if from_parts:
        check_no_pointer(folder / "merges.txt")
    tokenizer: PreTrainedTokenizerBase
    try:
        if from_parts:
            tokenizer = Qwen2Tokenizer.from_pretrained(folder)
        else:  # with its configuration: read separately, that of released checkpoints raises a warning
            tokenizer = AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False)
    except Exception as error:
        # Errors of the tokenizers library have no type of their own; transformers refuses code with a ValueError.
        if type(error) not in (Exception, ValueError):
            raise
        name = "vocab.json and merges.txt" if from_parts else "tokenizer.json"
        raise ValueError(f"{folder}: no tokenizer can be made of {name}: {one_line(error)}") from error
    return tokenizer


def _listed_ids(folder: Path) -> dict[str, dict[str, int]]:
    """Read ids by token from each file of the tokenizer that lists any."""
    listed = {}
    for name, read in _READERS.items():
        if not (folder / name).exists():
            continue
        content = read_json(folder / name)
        try:
            listed[name] = {str(token): int(number) for token, number in read(content).items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{folder / name} does not give every token its id ({type(error).__name__}: {one_line(error)}): copy "
                "it again"
            ) from error
    return listed


def _of_tokenizer(content: Mapping[str, Any]) -> dict[str, Any]:
    return {**content["model"]["vocab"], **{token["content"]: token["id"] for token in content.get("added_tokens", [])}}


def _of_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    return {token["content"]: number for number, token in (content.get("added_tokens_decoder") or {}).items()}


_READERS: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    "tokenizer.json": _of_tokenizer,
    "vocab.json": dict,
    "added_tokens.json": dict,
    "tokenizer_config.json": _of_settings,
}


def _check_ids(ids: Mapping[str, int], listed: Mapping[str, Mapping[str, int]], folder: Path) -> None:
    """Check that the ids of a tokenizer and of its files agree.

    Args:
        ids: Ids of the tokenizer, by token.
        listed: Ids that each file lists, by token.
        folder: Folder of the files.

    Raises:
        ValueError: If files give a token different ids, one lacks tokens of the vocabulary, or ids have gaps.
    """
    lost = listed.get("vocab.json", {}).keys() - ids.keys()
    if lost:
        raise ValueError(f"{folder}: tokenizer.json lacks {len(lost)} tokens of vocab.json, such as {min(lost)!r}")
    first: dict[str, tuple[int, str]] = {}
    ascending = dict(sorted(ids.items(), key=lambda entry: entry[1]))
    for name, tokens in [*listed.items(), ("the tokenizer made of them", ascending)]:
        for token, number in tokens.items():
            other, where = first.setdefault(token, (number, name))
            if other != number:
                raise ValueError(
                    f"{folder}: the token {token!r} has the id {other} in {where} and {number} in {name}: copy all "
                    "files of the tokenizer from one checkpoint"
                )
    gaps = set(range(len(ids))) - set(ids.values())
    if gaps:
        raise ValueError(
            f"{folder}: the ids of {len(ids)} tokens must be 0 to {len(ids) - 1}, each once; the tokenizer has no id "
            f"{min(gaps)} and goes up to {max(ids.values())}"
        )


def _check_ends(tokenizer: PreTrainedTokenizerBase, config: Any, folder: Path) -> None:
    """Check that the tokens with which the model ends its answers are end tokens.

    Known end tokens are `_END_TOKENS`; another one is accepted if tokenizer and model agree on it.

    Raises:
        ValueError: If one is not an end token, or an id is out of range.
    """
    path = folder / "generation_config.json"
    generation = read_json(path) if path.exists() else {}
    ends = {"config.json": config.eos_token_id, path.name: generation.get("eos_token_id")}
    for name, value in ends.items():
        _check_range(f"eos_token_id of {name}", value, len(tokenizer), folder)
    _check_range(f"pad_token_id of {path.name}", generation.get("pad_token_id"), len(tokenizer), folder)
    own, name_of = tokenizer.eos_token_id, tokenizer.convert_ids_to_tokens
    known = {tokenizer.convert_tokens_to_ids(token) for token in _END_TOKENS}
    for name, value in ends.items():
        for number in set(_as_list(value)) - known - {own}:
            raise ValueError(
                f"{folder}: eos_token_id of {name} is {number}, the token {name_of(number)!r}, which ends no answer: "
                f"the tokenizer's end is {tokenizer.eos_token!r}, id {own}"
            )
    numbers = {number for value in ends.values() for number in _as_list(value)}
    if numbers and own not in {*known, *numbers, None}:
        raise ValueError(
            f"{folder}: eos_token of tokenizer_config.json is {tokenizer.eos_token!r}, id {own}, and eos_token_id of "
            f"the model {', '.join(map(str, sorted(numbers)))}"
        )


def _check_range(name: str, value: Any, length: int, folder: Path) -> None:
    for number in _as_list(value):
        if type(number) is not int or not 0 <= number < length:
            raise ValueError(f"{folder}: {name} must be an id of the tokenizer, 0 to {length - 1}, got {number!r}")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
