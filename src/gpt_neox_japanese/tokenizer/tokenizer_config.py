"""The JSON files beside `vocab.txt`: options and added tokens, read as transformers reads them.

`tokenizer_config.json` holds the options, names the special tokens and, in `added_tokens_decoder`,
all added tokens with their ids and flags. Directories of earlier versions have `added_tokens.json`
(token → id) and `special_tokens_map.json` in its place. A token that is named and has no id yet,
by any of the names of `TokenNames`, gets the next one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from gpt_neox_japanese.errors import VocabularyError
from gpt_neox_japanese.files.json_files import read_object
from gpt_neox_japanese.tokenizer.added_tokens import AddedToken, AddedTokens, TokenFlags, check_free
from gpt_neox_japanese.tokenizer.token_names import TokenNames
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

__all__ = [
    "DEFAULT_NAMES",
    "DEFAULT_UNKNOWN",
    "TokenizerConfig",
    "read_tokenizer_config",
    "write_added_tokens",
]

_CONFIG_FILE = "tokenizer_config.json"
_ADDED_FILE = "added_tokens.json"
_SPECIAL_FILE = "special_tokens_map.json"

DEFAULT_UNKNOWN = "<|endoftext|>"

DEFAULT_NAMES = {
    "unk_token": DEFAULT_UNKNOWN,
    "pad_token": "<|endoftext|>",
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
}
"""What is meant where no file says it, in the order in which transformers numbers new ones."""

_STANDARD = (*DEFAULT_NAMES, "sep_token", "cls_token", "mask_token")

_EXTRA = "extra_special_tokens "  # what precedes the name of one of them here

_FLAGS = ("special", "lstrip", "rstrip", "single_word")

# An id so far behind the vocabulary is a mistake, or an attempt to make us take memory.
_FARTHEST = 2**20


class _Said(NamedTuple):
    """What the files say.

    Attributes:
        tokens: id → token.
        named: `pad_token` and its like → token; None where the file says null.
        extra: Special tokens without such a name.
    """

    tokens: dict[int, AddedToken]
    named: dict[str, AddedToken | None]
    extra: list[AddedToken]


class TokenizerConfig(NamedTuple):
    """What the JSON files of a tokenizer's directory say.

    Attributes:
        legacy: See `Codec`.
        clean: See `Codec`.
        unknown: See `Codec`.
        added: Added tokens, special tokens of the vocabulary among them.
    """

    legacy: bool
    clean: bool
    unknown: str | None
    added: AddedTokens

    def save(self, directory: Path) -> None:
        """Write `tokenizer_config.json`, from which the same is read again.

        Args:
            directory: Where to.
        """
        # A name of another form would have to stand in `extra_special_tokens`.
        names = {n: token for n, token in self.added.names.items() if n.endswith("_token")}
        if self.unknown != names.get("unk_token", DEFAULT_UNKNOWN):
            names["unk_token"] = self.unknown
        tokens = self.added.tokens
        config: dict[str, Any] = {
            "do_clean_text": self.clean,
            "legacy": self.legacy,
            "tokenizer_class": "GPTNeoXJapaneseTokenizer",
            **names,
        }
        if tokens:
            config["added_tokens_decoder"] = {str(i): _fields(t) for i, t in tokens.items()}
        # Other special tokens say so themselves.
        words = [
            tokens[i]
            for i in sorted(self.added.special_ids & tokens.keys())
            if not tokens[i].special
        ]
        if extra := [token for token in words if token.content not in names.values()]:
            config["extra_special_tokens"] = [
                {"__type": "AddedToken", **_fields(token)} for token in extra
            ]
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (directory / _CONFIG_FILE).write_text(text + "\n", encoding="utf-8", newline="\n")


def read_tokenizer_config(directory: Path, vocabulary: Vocabulary) -> TokenizerConfig:
    """Read the JSON files of a tokenizer's directory, none of which must be there.

    Args:
        directory: Where the files lie.
        vocabulary: Its `vocab.txt`.

    Returns:
        The options and the added tokens.

    Raises:
        VocabularyError: A file is broken, or an option, a token or an id in it makes no sense.
    """
    path = directory / _CONFIG_FILE
    config = _read_json(path)
    added = _read_added_tokens(directory, config, vocabulary)
    return TokenizerConfig(
        legacy=_flag(config, "legacy", True, path),
        clean=_flag(config, "do_clean_text", False, path),
        unknown=added.names.get("unk_token", DEFAULT_UNKNOWN),
        added=added,
    )


def write_added_tokens(path: Path, tokens: Mapping[int, Mapping[str, Any]]) -> None:
    """Put added tokens into a `tokenizer_config.json`.

    Args:
        path: The file, which is there.
        tokens: id → fields of the token.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    config["added_tokens_decoder"] = {str(i): dict(fields) for i, fields in tokens.items()}
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def _read_added_tokens(
    directory: Path, config: Mapping[str, Any], vocabulary: Vocabulary
) -> AddedTokens:
    tokens, named, extra = _read_files(directory, config, len(vocabulary))
    by_content = {token.content: token for token in tokens.values()}
    token_names = cache(lambda: TokenNames(vocabulary))  # which few directories need

    def as_written(token: AddedToken) -> AddedToken:
        content = token.content
        if content in by_content or not content or vocabulary.id_of_name(content) is not None:
            return token
        return token._replace(content=token_names().form_of(content))

    named = {name: token and as_written(token) for name, token in named.items()}
    extra = [as_written(token) for token in extra]
    new = [
        by_content.get(token.content, token)._replace(special=True)
        for name, default in DEFAULT_NAMES.items()
        if (token := named.get(name, AddedToken(default))) is not None
    ]
    numbered = _numbered(tokens, new, vocabulary)
    known = {token.content for token in numbered.values()}
    others = [
        token for name, token in named.items() if name not in DEFAULT_NAMES and token is not None
    ]
    others = [token._replace(special=True) for token in others] + extra
    numbered = _numbered(numbered, [t for t in others if t.content not in known], vocabulary)
    ids = {token.content: i for i, token in numbered.items()}
    # A default that neither the vocabulary nor a file knows was in no model's training.
    said = {token.content for token in (*named.values(), *extra) if token and token.content}
    defaults = set(DEFAULT_NAMES.values()) & ids.keys()
    for content in defaults - said - by_content.keys() - vocabulary.ids.keys():
        numbered.pop(ids[content], None)
    names = {name.removeprefix(_EXTRA): token and token.content for name, token in named.items()}
    return AddedTokens(numbered, [ids[content] for content in said], names)


def _fields(token: TokenFlags) -> dict[str, str | bool]:
    flags = {flag: getattr(token, flag) for flag in _FLAGS}
    return {"content": token.content, "normalized": not token.special, **flags}


def _flag(config: Mapping[str, Any], name: str, default: bool, path: Path) -> bool:
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise VocabularyError(f"{str(path)!r}: {name!r} must be true or false, not {value!r}")
    return value


def _read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; empty if there is no such file."""
    return (
        read_object(path, VocabularyError, "write it anew, or remove it") if path.exists() else {}
    )


def _read_files(directory: Path, config: Mapping[str, Any], size: int) -> _Said:
    path = directory / _CONFIG_FILE
    said = dict(config)
    extra = said.get("extra_special_tokens") or said.get("additional_special_tokens")
    own_names, extras = _extra(extra, path)
    tokens: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in said:
        decoder = said["added_tokens_decoder"]
        if not isinstance(decoder, dict):
            _fail(path, f"'added_tokens_decoder' is {decoder!r:.60}; it must map ids to tokens")
        for key, value in decoder.items():
            tokens[_id(key, path, size)] = _token(value, path, f"added_tokens_decoder[{key!r}]")
        return _Said(tokens, _named({**said, **own_names}, path), extras)

    path = directory / _SPECIAL_FILE
    special = _read_json(path)
    more_names, more_extras = _extra(special.get("extra_special_tokens"), path)
    extras += [token for token in more_extras if token not in extras]
    named = _named({**said, **special, **own_names, **more_names}, path)
    marks = {token.content for token in (*named.values(), *extras) if token is not None}
    path = directory / _ADDED_FILE
    for content, token_id in _read_json(path).items():
        token = _token(content, path, "a token")
        tokens[_id(token_id, path, size)] = token._replace(special=content in marks)
    return _Said(tokens, named, extras)


def _named(config: Mapping[str, Any], path: Path) -> dict[str, AddedToken | None]:
    """Every `…_token` of a file: the standard ones first, then those of its own."""
    own = [
        name
        for name, value in config.items()
        if name not in _STANDARD
        and (name.startswith(_EXTRA) or name.endswith("_token"))
        and isinstance(value, str | dict)
    ]
    own.sort(key=lambda name: (name.startswith(_EXTRA), isinstance(config[name], str)))
    standard = (name for name in _STANDARD if name in config)
    return {
        name: None if config[name] is None else _token(config[name], path, name)
        for name in (*standard, *own)
    }


def _extra(values: Any, path: Path) -> tuple[dict[str, Any], list[AddedToken]]:
    """Extra special tokens: those with a name of their own, and the others."""
    if isinstance(values, dict):
        return {f"{_EXTRA}{name}": value for name, value in values.items()}, []
    if not isinstance(values, list | None):
        _fail(path, f"the extra special tokens are {values!r:.60}; they must be a list of tokens")
    tokens = [(value, _token(value, path, "an extra special token")) for value in values or ()]
    # With flags they say themselves whether they are special.
    return {}, [t if isinstance(v, dict) else t._replace(special=True) for v, t in tokens]


def _token(value: Any, path: Path, name: str) -> AddedToken:
    fields: Any = {"content": value} if isinstance(value, str) else value
    content = fields.get("content") if isinstance(fields, dict) else None
    if not isinstance(content, str):
        _fail(path, f"{name} is {value!r:.60}; it must be a string, or an object with 'content'")
    if any("\ud800" <= character <= "\udfff" for character in content):
        _fail(path, f"{name} is {content!r:.60}, with half of a surrogate pair; write characters")
    flags: dict[str, bool] = {flag: fields.get(flag, False) for flag in _FLAGS}
    for flag, is_set in flags.items():
        if not isinstance(is_set, bool):
            _fail(path, f"{name}: {flag!r} must be true or false, not {is_set!r:.60}")
    return AddedToken(content, **flags)


def _id(value: Any, path: Path, size: int) -> int:
    """An id, which may be written as a string.

    Args:
        value: As the file has it.
        path: The file.
        size: Number of ids of the vocabulary.
    """
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not (is_number or (isinstance(value, str) and value.isascii() and value.isdigit())):
        _fail(path, f"{value!r:.60} is no id of an added token; write a whole number")
    if len(str(value)) > len(str(_FARTHEST + size)) or not 0 <= int(value) < size + _FARTHEST:
        _fail(
            path,
            f"id {value!s:.60} of an added token is too far from the vocabulary's {size} ids; write"
            " the number that the model has for it",
        )
    return int(value)


def _numbered(
    tokens: Mapping[int, AddedToken], new: Iterable[AddedToken], vocabulary: Vocabulary
) -> dict[int, AddedToken]:
    """The tokens and the new ones, which keep the id of their name or get the next one."""
    numbered = dict(tokens)
    ids = {token.content: i for i, token in sorted(tokens.items())}
    next_id = max(len(vocabulary), 1 + max(tokens, default=-1))
    for token in new:
        if not token.content:
            continue
        token_id = ids.get(token.content)
        if token_id is None:
            token_id = vocabulary.id_of_name(token.content)
        if token_id is None:
            token_id = next_id
            next_id += 1
        check_free(token.content, token_id, numbered)
        ids[token.content] = token_id
        numbered[token_id] = token
    return numbered


def _fail(path: Path, problem: str) -> NoReturn:
    raise VocabularyError(f"{str(path)!r}: {problem}")
