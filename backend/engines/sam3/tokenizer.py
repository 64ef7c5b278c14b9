"""Encodes phrases for SAM3's text encoder: CLIP's vocabulary, 32 tokens per phrase."""

import gzip
import html
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import ftfy
import tokenizers
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from backend.errors import BadRequest, SettingsError

START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT_LENGTH = 32
"""Tokens per phrase of the released SAM3, including start and end."""
VOCABULARY_SIZE = 49408
"""Entries of CLIP's vocabulary: two per byte, one per merge, the start and the end."""
QUOTED_LETTERS = 40
"""Maximum number of characters of a phrase that an error quotes."""


class Tokenizer:
    """Converts phrases to token ids; created by `from_folder` or `from_bpe`.

    Args:
        tokens: the library's tokenizer, which adds the start and end tokens to a phrase.
        context: tokens per phrase, including start and end.
        padding: the token that pads a phrase; the attention mask hides it.

    Raises:
        SettingsError: the tokenizer has no start or end token, or does not add them to a phrase.
    """

    def __init__(self, tokens: tokenizers.Tokenizer, context: int = CONTEXT_LENGTH, padding: str = END) -> None:
        # `clean_phrase` normalises as CLIP does; a second normalisation would join what CLIP keeps separate.
        tokens.normalizer = None
        tokens.no_truncation()
        tokens.no_padding()
        around = tokens.encode("a").ids
        pad = tokens.token_to_id(padding)
        if around[:1] != [tokens.token_to_id(START)] or around[-1:] != [tokens.token_to_id(END)] or pad is None:
            raise SettingsError(
                f"the tokenizer is not CLIP's: it does not add {START} and {END} to a phrase; copy it again"
            )
        self._tokens, self._pad = tokens, pad
        self.context = context
        self.size = tokens.get_vocab_size()

    @classmethod
    def from_folder(cls, folder: Path, context: int = CONTEXT_LENGTH) -> Self:
        """Read tokenizer.json, or vocab.json and merges.txt, and the padding token of tokenizer_config.json.

        Raises:
            SettingsError: the files are missing or broken.
        """
        padding = _read_padding(folder / "tokenizer_config.json")
        whole, vocabulary, merges = folder / "tokenizer.json", folder / "vocab.json", folder / "merges.txt"
        if whole.is_file():
            try:
                tokens = tokenizers.Tokenizer.from_file(str(whole))
            except Exception as error:  # The library raises no narrower class.
                raise _broken_file(whole) from error
        elif vocabulary.is_file() and merges.is_file():
            tokens = _build_clip(_read_json(vocabulary), _parse_merges(_read_lines(merges)[1:], merges))
        else:
            raise SettingsError(
                f"the folder {folder.name} contains no tokenizer.json, nor vocab.json with merges.txt: "
                "copy it there from the hub"
            )
        return cls(tokens, context, padding)

    @classmethod
    def from_bpe(cls, path: Path, context: int = CONTEXT_LENGTH) -> Self:
        """Read bpe_simple_vocab_16e6.txt.gz, which comes with the original sam3.pt, also unpacked.

        Raises:
            SettingsError: the file is missing or broken.
        """
        letters = sorted(ByteLevel.alphabet())
        merges = _parse_merges(_read_lines(path)[1 : VOCABULARY_SIZE - 2 * len(letters) - 1], path)
        words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), START, END]
        if len(words) != VOCABULARY_SIZE:
            raise _broken_file(path)
        return cls(_build_clip({word: number for number, word in enumerate(words)}, merges), context)

    def encode(self, phrases: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode phrases as token ids, padded to the model's context.

        Returns:
            ids (n, context) int64, and the attention mask (n, context) int64: 1 from the start to the end of a phrase,
            0 on padding.

        Raises:
            BadRequest: a phrase is empty, or has too many tokens. Phrases are never truncated.
        """
        ids = torch.full((len(phrases), self.context), self._pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, phrase in enumerate(phrases):
            found = self._encode_phrase(phrase)
            ids[row, : len(found)] = torch.tensor(found)
            mask[row, : len(found)] = 1
        return ids, mask

    def _encode_phrase(self, phrase: str) -> list[int]:
        text = clean_phrase(phrase)
        if not text:
            raise BadRequest('a phrase is empty: enter what to find, such as "person"')
        found: list[int] = self._tokens.encode(text).ids
        if len(found) > self.context:
            quoted = text if len(text) <= QUOTED_LETTERS else f"{text[:QUOTED_LETTERS]}…"
            raise BadRequest(
                f'the phrase "{quoted}" has {len(found) - 2} tokens, and the maximum is {self.context - 2}: shorten it'
            )
        return found


def clean_phrase(phrase: str) -> str:
    """Clean a phrase like CLIP's training texts: repaired Unicode, no HTML entities, single spaces, lower case."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(phrase))).split()).lower()


def _build_clip(vocabulary: dict[str, int], merges: list[Any]) -> tokenizers.Tokenizer:
    try:
        return CLIPTokenizer(vocab=vocabulary, merges=merges).backend_tokenizer
    except Exception as error:  # The library raises no narrower class.
        raise SettingsError("the tokenizer's vocabulary and merges do not match: copy both again") from error


def _parse_merges(lines: Sequence[str], path: Path) -> list[tuple[str, str]]:
    pairs = [tuple(line.split()) for line in lines if line.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise _broken_file(path)
    return [(first, second) for first, second in pairs]


def _read_padding(path: Path) -> str:
    """The padding token in tokenizer_config.json: a string, or an object with `content`."""
    named: Any = _read_json(path).get("pad_token") if path.is_file() else None
    return str((named.get("content") if isinstance(named, dict) else named) or END)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _broken_file(path) from error
    if not isinstance(found, dict):
        raise _broken_file(path)
    return found


def _read_lines(path: Path) -> list[str]:
    if not path.is_file():
        raise SettingsError(f"there is no file {path.name}: set bpe_path to a copy of it")
    try:
        data = path.read_bytes()
        text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        return text.decode("utf-8").split("\n")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _broken_file(path) from error


def _broken_file(path: Path) -> SettingsError:
    return SettingsError(f"{path.name} is broken or not a tokenizer file of CLIP: copy it again")
