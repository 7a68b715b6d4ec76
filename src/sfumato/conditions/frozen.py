"""Text encoders that others trained, through transformers: the CLIP, T5, BERT and GPT families.

A local folder is all that is read (see `foreign`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.conditions.foreign import LOCAL, WEIGHTS, check_whole, transformers_for
from sfumato.conditions.tokens import LONGEST, sound
from sfumato.errors import ModelFileError, SettingsError
from sfumato.files.manifest import hash_file

AT_ONCE = 64
"""How many captions go through together."""
_READ = (".json", ".safetensors", ".txt", ".model")


class FrozenText:
    """An encoder that never changes: captions -> (B, N, D) float32, or (B, 1, D) pooled.

    `folder` is a transformers folder with its tokenizer, or a diffusers folder with `text_encoder/` and
    `tokenizer/`. Pooled is the state of the end token for CLIP, of the last token for GPTs, and the mean over
    the tokens for T5 and BERT. `length` is the most tokens of a caption; the encoder's own limit holds too.
    Raises SettingsError where transformers is not installed, ModelFileError for a folder that is no text
    encoder: one sentence each.
    """

    def __init__(
        self,
        folder: Path | str,
        pooled: bool = False,
        length: int = LONGEST,
        device: torch.device | str = "cpu",
    ) -> None:
        self.folder, self.pooled = Path(folder), pooled
        if length < 2:
            raise SettingsError(f"a caption of {length} tokens is too short: give a length of at least 2")
        self._model, self._tokenizer, self._pooling = _opened(self.folder)
        self._model = self._model.to(device).eval().requires_grad_(False)
        if self._tokenizer.pad_token is None:  # GPTs have none; what is padded is not looked at
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._tokenizer.padding_side = self._tokenizer.truncation_side = "right"
        config = self._model.config
        places = getattr(config, "max_position_embeddings", None) or length
        self._tokens = min(length, int(self._tokenizer.model_max_length), int(places))
        self._width = int(config.hidden_size)

    @property
    def width(self) -> int:
        """D, the numbers of one state."""
        return self._width

    @property
    def length(self) -> int:
        """N, the states of one caption: 1 if pooled."""
        return 1 if self.pooled else self._tokens

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 of the folder's settings, weights and tokenizer: what the states are a function of. It is
        the same whether they lie in one folder or in two."""
        files = {
            f"{path.name} {hash_file(path)[0]}"
            for place in dict.fromkeys(_places(self.folder))
            for path in place.iterdir()
            if path.suffix in _READ
        }
        return hashlib.sha256("\n".join(sorted(files)).encode()).hexdigest()

    @torch.no_grad()
    def states(self, texts: Sequence[str]) -> Tensor:
        """The captions' states, (B, length, width), on the encoder's device; zeros where a caption has no
        token."""
        parts = [self._states(texts[at : at + AT_ONCE]) for at in range(0, len(texts), AT_ONCE)]
        return torch.cat(parts) if parts else torch.zeros(0, self.length, self.width)

    def _states(self, texts: Sequence[str]) -> Tensor:
        told = self._tokenizer(
            [sound(text) for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self._tokens,
            return_tensors="pt",
        )
        device = next(self._model.parameters()).device
        ids, mask = told["input_ids"].to(device), told["attention_mask"].to(device)
        mask[:, 0] = 1  # GPTs see nothing at all in an empty caption
        out = self._model(input_ids=ids, attention_mask=mask)
        states = out.last_hidden_state.float() * mask[..., None]
        if not self.pooled:
            return states
        if self._pooling == "end":
            return out.pooler_output.float()[:, None]
        count = mask.sum(dim=1)
        if self._pooling == "last":
            return states[torch.arange(len(states), device=device), count - 1][:, None]
        return states.sum(dim=1, keepdim=True) / count[:, None, None]


def _places(folder: Path) -> tuple[Path, Path]:
    """Where the weights are and where the tokenizer is."""
    parts = folder / "text_encoder", folder / "tokenizer"
    return parts if parts[0].is_dir() and parts[1].is_dir() else (folder, folder)


def _opened(folder: Path) -> tuple[Any, Any, str]:
    """The model, its tokenizer, and how its states are pooled: end, last or mean."""
    weights, words = _places(folder)
    with transformers_for(weights) as transformers:
        config = transformers.AutoConfig.from_pretrained(weights, **LOCAL)
        kind, pooling = _kind(transformers, config)
        if kind is None:
            raise ModelFileError(
                f"{folder}: a model of the kind {config.model_type!r:.60} is no text encoder: give one of "
                "the CLIP, T5, BERT or GPT families"
            )
        model, told = kind.from_pretrained(weights, dtype=torch.float32, **WEIGHTS)
        tokenizer = transformers.AutoTokenizer.from_pretrained(words, **LOCAL)
    check_whole(weights, told)
    return model, tokenizer, pooling


def _kind(transformers: Any, config: Any) -> tuple[Any, str]:
    """The class that opens this configuration as an encoder of text, and how its states are pooled."""
    if config.model_type in ("clip", "clip_text_model"):
        return transformers.CLIPTextModel, "end"
    if type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING:
        return transformers.AutoModelForTextEncoding, "mean"
    if type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING and not config.is_encoder_decoder:
        return transformers.AutoModel, "last"
    return None, ""
