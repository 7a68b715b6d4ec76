"""Captions as rows of numbers: byte-pair encoding (Sennrich et al. 2016) in the files of CLIP's tokenizer.

    tokenizer = train_tokenizer(captions)
    tokenizer.rows(["red heart, 3d render emoji"])      # (1, length) int64: start, tokens, end, padding

Splitting and encoding are those of the `tokenizers` library by the rules of CLIP (Radford et al. 2021), so
transformers' CLIPTokenizer gives the same numbers from the same folder.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Engine
from torch import Tensor

from sfumato.conditions.byte_pairs import SUFFIX, Pair, learn_pairs
from sfumato.errors import ModelFileError, SettingsError
from sfumato.files import inside, read_json, write_json
from sfumato.files.atomic import write_atomic
from sfumato.files.header import shown
from sfumato.files.sniff import open_regular, read_all

log = logging.getLogger(__name__)

START, END = "<|startoftext|>", "<|endoftext|>"
LONGEST = 77
"""The most tokens of CLIP, start and end counted: what a length is when captions do not say a smaller one."""
BYTES = 256
SMALLEST = 2 * BYTES + 2
"""Every byte inside and at the end of a word, start and end: with them there is no unknown word."""
MOST = 1_000_000
_MERGES_BYTES = 16 << 20
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def _normalizer() -> normalizers.Normalizer:
    """Composed letters, single spaces, lower case."""
    return normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )


def _splitter() -> pre_tokenizers.PreTokenizer:
    """Words, single digits and runs of marks, each byte as one printable letter."""
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def sound(text: str) -> str:
    """The text with a question mark for each half of a surrogate pair, which is no letter."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary in the order of its numbers, the pairs that are joined, in order, and the length of a row.

    `padding` fills a row after its end; CLIP's, and ours, is the end itself. Raises SettingsError for parts
    that do not fit together.
    """

    vocabulary: tuple[str, ...]
    merges: tuple[Pair, ...]
    length: int = LONGEST
    start: str = START
    end: str = END
    padding: str = END
    _told: list[bool] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        reason = self._wrong()
        if reason is not None:
            raise SettingsError(f"no tokenizer of captions: {reason}")

    def _wrong(self) -> str | None:
        """What does not fit together; None for a good tokenizer."""
        known = self._numbers
        if len(known) != len(self.vocabulary):
            return "two tokens of its vocabulary are the same"
        if not 2 < self.length <= MOST:
            return f"a length of {self.length} tokens, where start and end are two"
        for name in ("start", "end", "padding"):
            if getattr(self, name) not in known:
                return f"its vocabulary lacks the {name} token {shown(getattr(self, name))}"
        letters = pre_tokenizers.ByteLevel.alphabet()
        lacks = sorted({*letters, *(letter + SUFFIX for letter in letters)} - known.keys())
        if lacks:
            return f"its vocabulary lacks {shown(lacks[0])}, one of the {2 * BYTES} bytes"
        for left, right in self.merges:
            missing = next((part for part in (left, right, left + right) if part not in known), None)
            if missing is not None:
                return f"it joins {shown(left)} and {shown(right)}, but its vocabulary lacks {shown(missing)}"
        return None

    def __len__(self) -> int:
        return len(self.vocabulary)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.vocabulary)}

    @cached_property
    def _engine(self) -> Engine:
        model = models.BPE(
            vocab=self._numbers, merges=list(self.merges), end_of_word_suffix=SUFFIX, unk_token=self.end
        )
        engine = Engine(model)
        engine.normalizer = _normalizer()  # pyright: ignore[reportAttributeAccessIssue]
        engine.pre_tokenizer = _splitter()  # pyright: ignore[reportAttributeAccessIssue]
        special = dict.fromkeys((self.start, self.end, self.padding))
        engine.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
        return engine

    @property
    def end_number(self) -> int:
        """The number of the end token: a caption's pooled state is that of its first end."""
        return self._numbers[self.end]

    def encode(self, text: str) -> list[int]:
        """The numbers of a text's tokens, without start, end and padding, however many they are."""
        return list(self._engine.encode(sound(text), add_special_tokens=False).ids)

    def tokens(self, text: str) -> list[str]:
        """The same as pieces of text, to look at: a piece that ends a word ends with "</w>"."""
        return [self.vocabulary[number] for number in self.encode(text)]

    def rows(self, texts: str | Sequence[str]) -> Tensor:
        """What a text encoder takes, (B, length) int64: start, tokens, end, padding.

        A text of too many tokens is cut, which is said once for each tokenizer in the log.
        """
        texts = [texts] if isinstance(texts, str) else texts
        begin, stop, fill = (self._numbers[token] for token in (self.start, self.end, self.padding))
        rows = torch.full((len(texts), self.length), fill, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            found = self.encode(text)
            if len(found) > self.length - 2 and not self._told:
                self._told.append(True)
                log.warning(
                    "a caption of %d tokens is cut to %d, and so are others: %.80r",
                    len(found),
                    self.length - 2,
                    text,
                )
            numbers = [begin, *found[: self.length - 2], stop]
            row[: len(numbers)] = torch.tensor(numbers)
        return rows

    def save(self, folder: Path) -> None:
        """Writes the folder that transformers' CLIPTokenizer reads; the same tokenizer gives the same bytes.

        Raises RunError if the disk refuses.
        """
        folder.mkdir(parents=True, exist_ok=True)
        special = {"bos_token": self.start, "eos_token": self.end, "unk_token": self.end}
        special["pad_token"] = self.padding
        about = {"tokenizer_class": "CLIPTokenizer", "model_max_length": self.length, "do_lower_case": True}
        text = "\n".join(["#version: 0.2", *(f"{left} {right}" for left, right in self.merges), ""])
        write_json(folder / "vocab.json", self._numbers)
        write_atomic(folder / "merges.txt", [text.encode("utf-8")])
        write_json(folder / "special_tokens_map.json", special)
        write_json(folder / "tokenizer_config.json", about | special)


def train_tokenizer(captions: Iterable[str], vocabulary: int = 2048, length: int | None = None) -> Tokenizer:
    """Learns a vocabulary of at most `vocabulary` tokens from captions: every byte, and the pairs seen most.

    A row's `length` is that of the longest caption, a multiple of 8 and at most 77, if it is not given. The
    same captions, in any order, give the same tokenizer. Raises SettingsError for a vocabulary smaller than
    the 514 tokens that any text needs.
    """
    if not SMALLEST <= vocabulary <= MOST:
        raise SettingsError(f"a vocabulary has {SMALLEST} to {MOST:,} tokens, not {vocabulary}")
    normal, split = _normalizer(), _splitter()
    words: Counter[str] = Counter()
    seen = Counter(captions)
    for caption, times in seen.items():
        for word, _ in split.pre_tokenize_str(normal.normalize_str(sound(caption))):
            words[word] += times
    merges = learn_pairs(words, vocabulary - SMALLEST)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    joined = dict.fromkeys(left + right for left, right in merges)
    tokens = (*letters, *(letter + SUFFIX for letter in letters), *joined, START, END)
    if length is not None:
        return Tokenizer(tokens, tuple(merges), length)
    widest = Tokenizer(tokens, tuple(merges))
    longest = max((len(widest.encode(caption)) for caption in seen), default=0)
    return Tokenizer(tokens, tuple(merges), min(LONGEST, -(-(longest + 2) // 8) * 8))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in a folder that `save`, or transformers' CLIPTokenizer, wrote.

    Nothing in the folder is believed before it is checked. Raises ModelFileError, one sentence: a file that
    is missing, damaged, too large, or not CLIP's.
    """
    vocab = read_json(inside(folder, "vocab.json"), limit=_MERGES_BYTES)
    about: dict[str, object] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).exists():
            said = read_json(inside(folder, name))
            about |= said if isinstance(said, dict) else {}
    special = {
        ours: _content(about.get(theirs), default)
        for ours, theirs, default in (
            ("start", "bos_token", START),
            ("end", "eos_token", END),
            ("padding", "pad_token", END),
        )
    }
    length = about.get("model_max_length", LONGEST)
    try:
        if type(length) is not int:
            raise SettingsError(f"no tokenizer of captions: model_max_length is {str(length)[:40]!r}")
        return Tokenizer(_ordered(vocab), _merges(inside(folder, "merges.txt")), length, **special)
    except SettingsError as error:
        raise ModelFileError(f"{folder}: {error}: fetch the folder again") from None


def _content(said: object, default: str) -> str:
    """A special token, as a text or as `{"content": text}`."""
    inner = said.get("content") if isinstance(said, dict) else said
    return inner if isinstance(inner, str) else default


def _ordered(vocab: object) -> tuple[str, ...]:
    """The tokens of `{token: number}` by number, which must be 0, 1, 2, ..."""
    if not isinstance(vocab, dict) or not 0 < len(vocab) <= MOST:
        raise SettingsError("no tokenizer of captions: vocab.json is no list of up to a million tokens")
    by_number = {number: token for token, number in vocab.items() if type(number) is int}
    if by_number.keys() != set(range(len(vocab))):
        raise SettingsError(
            f"no tokenizer of captions: the {len(vocab):,} tokens of vocab.json are not numbered 0, 1, 2, ..."
        )
    return tuple(str(by_number[number]) for number in range(len(vocab)))


def _merges(path: Path) -> tuple[Pair, ...]:
    """The pairs of merges.txt, one a line, after the line with its version."""
    with open_regular(path) as (handle, size):
        if size > _MERGES_BYTES:
            raise SettingsError(f"no tokenizer of captions: merges.txt has {size:,} bytes")
        data = read_all(handle, path, size)
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"no tokenizer of captions: merges.txt is not UTF-8 at offset {error.start}"
        ) from None
    pairs: list[Pair] = []
    for number, line in enumerate(lines, 1):
        words = line.rstrip("\r").split(" ")
        if words == [""] or (number == 1 and line.startswith("#version")):
            continue
        if len(words) != 2:
            raise SettingsError(f"no tokenizer of captions: line {number} of merges.txt is no pair")
        pairs.append((words[0], words[1]))
    return tuple(pairs)
