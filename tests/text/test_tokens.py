"""Captions as tokens: learned like the algorithm says, encoded like transformers' CLIPTokenizer, read with
care."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.conditions.byte_pairs import SUFFIX, Pair, joined, learn_pairs
from sfumato.conditions.tokens import END, LONGEST, SMALLEST, Tokenizer, load_tokenizer, train_tokenizer
from sfumato.errors import ModelFileError, SettingsError

CAPTIONS = [
    f"{colour} {thing}, {style}"
    for colour in ("red", "light blue", "green")
    for thing in ("heart", "automobile", "smiling cat with heart-eyes", "café")
    for style in ("3d render", "flat")
]
AWKWARD = [
    "",
    " ",
    "Red   HEART\n\t3D",
    "e\u0301clair é",  # composed and not
    "it's don't WE'LL 1234!!",
    "日本語 😀 ñandú",
    "a" * 40,
    "x <|endoftext|> y <|startoftext|>",
    "\u2028 nothing \x00 odd",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(CAPTIONS, 600)


def slow_pairs(words: Mapping[str, int], most: int) -> list[Pair]:
    """The algorithm as it is written: every pair counted anew for each one that is joined."""
    pieces = {word: [*word[:-1], word[-1] + SUFFIX] for word in words}
    pairs: list[Pair] = []
    while len(pairs) < most:
        counts: Counter[Pair] = Counter()
        for word, parts in pieces.items():
            for pair in pairwise(parts):
                counts[pair] += words[word]
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            break
        pairs.append(best)
        pieces = {word: joined(parts, best) for word, parts in pieces.items()}
    return pairs


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=9), st.integers(1, 5), max_size=12))
def test_the_fast_search_for_pairs_is_the_slow_one(words: dict[str, int]) -> None:
    assert learn_pairs(words, 25) == slow_pairs(words, 25)


def test_the_first_pairs_are_those_of_the_paper() -> None:
    """Sennrich et al. 2016, section 3.2: low, lower, newest, widest. "es" comes first (9 times, and before
    "st" by its letters), then "est" at the end of a word, then "lo" (7)."""
    words = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    assert learn_pairs(words, 3) == [("e", "s"), ("es", "t" + SUFFIX), ("l", "o")]


def test_the_order_of_the_captions_does_not_matter() -> None:
    assert train_tokenizer(CAPTIONS, 600) == train_tokenizer(reversed(CAPTIONS), 600)


def test_transformers_reads_the_same_numbers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    peer = transformers.CLIPTokenizer.from_pretrained(str(tmp_path))
    texts = CAPTIONS + AWKWARD
    theirs = peer(texts, padding="max_length", truncation=True, max_length=tokenizer.length)["input_ids"]
    assert tokenizer.rows(texts).tolist() == theirs
    peer.save_pretrained(str(tmp_path / "theirs"))
    if (tmp_path / "theirs" / "vocab.json").exists():
        assert load_tokenizer(tmp_path / "theirs").rows(texts).tolist() == theirs


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_no_text_is_unknown(text: str) -> None:
    """Without the special tokens no text gives one, and its pieces put together are its letters."""
    tokenizer = train_tokenizer(CAPTIONS, SMALLEST + 20)
    if "<|" not in text:
        assert max(tokenizer.encode(text), default=0) < len(tokenizer) - 2
    words = "heart 3 cafés"
    pieces = tokenizer.tokens(words)
    assert "".join(pieces).replace(SUFFIX, " ").strip().encode("utf-8") == "heart 3 cafÃ©s".encode()


def test_half_a_surrogate_pair_is_a_question_mark(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("red \ud800") == tokenizer.encode("red ?")


def test_a_row_is_start_tokens_end_and_padding(tokenizer: Tokenizer) -> None:
    row = tokenizer.rows("red heart")[0]
    inner = tokenizer.encode("red heart")
    end = len(tokenizer) - 1
    assert row.dtype == torch.int64
    assert row.tolist() == [end - 1, *inner, *[end] * (tokenizer.length - 1 - len(inner))]
    assert tokenizer.rows([""])[0, :2].tolist() == [end - 1, end]
    assert tokenizer.rows([]).shape == (0, tokenizer.length)


def test_the_length_is_that_of_the_longest_caption() -> None:
    counted = train_tokenizer(CAPTIONS, 600)
    longest = max(len(counted.encode(text)) for text in CAPTIONS) + 2
    assert counted.length % 8 == 0
    assert 0 <= counted.length - longest < 8
    assert train_tokenizer(["wordy " * 200], 600).length == LONGEST
    assert train_tokenizer(CAPTIONS, 600, length=9).length == 9


def test_a_long_caption_is_cut_and_that_is_said_once(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = Tokenizer(tokenizer.vocabulary, tokenizer.merges, 6)
    rows = fresh.rows(["red heart, flat", "red", "green heart, flat"])
    assert rows[:, -1].tolist() == [len(tokenizer) - 1] * 3
    assert rows[0, 1:5].tolist() == tokenizer.encode("red heart, flat")[:4]
    fresh.rows(["red heart, flat and more"])
    assert len(caplog.records) == 1


def test_what_is_saved_is_read_again_and_gives_the_same_bytes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "a")
    again = load_tokenizer(tmp_path / "a")
    assert again == tokenizer
    again.save(tmp_path / "b")
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_special_tokens_may_be_objects_and_another_token_may_fill(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Stable Diffusion 2 fills with "!", and older files write tokens as objects."""
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 12, "pad_token": "!", "eos_token": {"content": END, "lstrip": False}})
    )
    read = load_tokenizer(tmp_path)
    assert (read.length, read.padding, read.end) == (12, "!", END)
    assert read.rows("red")[0, -1] == tokenizer.vocabulary.index("!")


def _vocabulary(folder: Path) -> dict[str, int]:
    return json.loads((folder / "vocab.json").read_text("utf-8"))


def _without_a_byte(folder: Path) -> None:
    tokens = [token for token in sorted(_vocabulary(folder), key=_vocabulary(folder).get) if token != "q"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))


DAMAGE = {
    "no vocabulary": lambda f: (f / "vocab.json").unlink(),
    "no merges": lambda f: (f / "merges.txt").unlink(),
    "no JSON": lambda f: (f / "vocab.json").write_text("{"),
    "a list": lambda f: (f / "vocab.json").write_text("[1]"),
    "numbers with a gap": lambda f: (f / "vocab.json").write_text('{"a": 0, "b": 2}'),
    "texts for numbers": lambda f: (f / "vocab.json").write_text('{"a": "0"}'),
    "a byte is missing": _without_a_byte,
    "three in a pair": lambda f: (f / "merges.txt").write_text("#version: 0.2\na b c\n"),
    "a pair of strangers": lambda f: (f / "merges.txt").write_text("zzz qqq\n"),
    "no UTF-8": lambda f: (f / "merges.txt").write_bytes(b"\xff\xfe"),
    "no length": lambda f: (f / "tokenizer_config.json").write_text('{"model_max_length": "7"}'),
    "a length of 1": lambda f: (f / "tokenizer_config.json").write_text('{"model_max_length": 1}'),
    "another end": lambda f: (f / "tokenizer_config.json").write_text('{"eos_token": "the end"}'),
    "a link to elsewhere": lambda f: (
        (f / "merges.txt").unlink(),
        (f / "merges.txt").symlink_to("/etc/hostname"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused_in_one_sentence(
    damage: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path)
    DAMAGE[damage](tmp_path)
    with pytest.raises(ModelFileError) as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_vocabulary_needs_its_bytes() -> None:
    with pytest.raises(SettingsError, match="514"):
        train_tokenizer(CAPTIONS, 513)
    assert len(train_tokenizer([], SMALLEST)) == SMALLEST
