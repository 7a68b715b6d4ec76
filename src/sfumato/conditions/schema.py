"""All conditions of a model in one value: what it can be told, and what its network takes of that.

A network is given up to four tensors, one row a picture: `classes` (B,) int64, `vector` (B, F) float32, the
features of all attributes, `tokens` (B, N) int64 or `context` (B, N, D) float32, the caption, and `picture`
(B, C, H, W) float32. What is not told has a row of its own: the class after the last, features of 0, the
empty caption, a picture of zeros. Training hides conditions by the same rows (Ho & Salimans 2022).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.conditions import columns
from sfumato.conditions.attributes import Attributes, Said, Value
from sfumato.conditions.classes import Asked, Classes
from sfumato.data.dataset import Batch
from sfumato.errors import SettingsError

LONGEST = 10_000
"""The most letters of a prompt."""


@runtime_checkable
class Tokens(Protocol):
    """Captions as rows of numbers, (B, N) int64, for a text encoder that belongs to the model."""

    def rows(self, texts: Sequence[str]) -> Tensor: ...


@runtime_checkable
class States(Protocol):
    """Captions as a frozen text encoder understands them, (B, N, D) float32."""

    def states(self, texts: Sequence[str]) -> Tensor: ...


Reader = Tokens | States


@dataclass(frozen=True)
class Shown:
    """A picture as condition: its (channels, height, width), and the task that it is for, or the column of
    the user's own pictures."""

    shape: tuple[int, int, int]
    task: str = ""
    column: str = ""


@dataclass(frozen=True)
class Wish:
    """What is told of one picture. None, and attributes that are not among the values, are not told."""

    label: int | None = None
    values: Mapping[str, Value] = field(default_factory=dict)
    prompt: str | None = None


@dataclass(frozen=True)
class Conditions:
    """The conditions of a model; by default none."""

    classes: Classes | None = None
    attributes: Attributes = field(default_factory=Attributes)
    text: Reader | None = None
    shown: Shown | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the conditions that can be told or not, each by itself; guidance adds them in this order."""
        out = ["picture"] if self.shown is not None else []
        out += ["class"] if self.classes is not None and self.classes.null else []
        return (*out, *self.attributes.names, *(["text"] if self.text is not None else []))

    def rows(self, wishes: Sequence[Wish], picture: Tensor | None = None) -> dict[str, Tensor]:
        """What the network takes for these wishes, and for this picture, (B, C, H, W)."""
        out: dict[str, Tensor] = {}
        if self.classes is not None:
            out["classes"] = self.classes.rows([wish.label for wish in wishes])
        if self.attributes.items:
            out["vector"] = self.attributes.rows([wish.values for wish in wishes])
        if self.text is not None:
            out |= _read(self.text, [wish.prompt or "" for wish in wishes])
        return out | self._picture(picture, len(wishes))

    def wishes(self, batch: Batch, labels: Mapping[str, Sequence[str]] | None = None) -> tuple[Wish, ...]:
        """What is known of samples of the data: their classes, columns and captions. `labels` are the values
        of attributes that are in no column."""
        n = len(batch)
        classes = [None] * n if self.classes is None or batch.classes is None else batch.classes.tolist()
        held = columns.told(self.attributes, batch.columns or ({},) * n)
        for name, each in (labels or {}).items():
            held = [values | {name: label} for values, label in zip(held, each, strict=True)]
        texts = [None] * n if self.text is None or batch.captions is None else batch.captions
        known = [None if label is None or label < 0 else label for label in classes]
        each_of = zip(known, held, texts, strict=True)
        return tuple(Wish(label, values, text or None) for label, values, text in each_of)

    def nothing(self, n: int) -> dict[str, Tensor]:
        """What the network takes for n pictures of which nothing is told."""
        return self.rows([Wish()] * n)

    def hidden(self, cond: Mapping[str, Tensor], which: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same tensors with a condition not told where `which`, by `names`, says so: (B,) bool."""
        out = dict(cond)
        for name, gone in which.items():
            if name == "class" and self.classes is not None and "classes" in out:
                out["classes"] = torch.where(gone, len(self.classes.names), out["classes"])
            elif name == "text" and self.text is not None:
                for key, empty in _read(self.text, [""]).items():
                    out[key] = torch.where(_as(gone, out[key]), empty, out[key])
            elif name == "picture" and "picture" in out:
                out["picture"] = torch.where(_as(gone, out["picture"]), 0, out["picture"])
        if "vector" in out:
            out["vector"] = self.attributes.hide(out["vector"], which)
        return out

    def asked(
        self,
        n: int,
        classes: Sequence[Asked | None] | None = None,
        prompts: Sequence[str | None] | None = None,
        values: Sequence[Mapping[str, Said | None]] | None = None,
    ) -> tuple[Wish, ...]:
        """The wishes of a user, judged; each argument has one entry for each of the n pictures, or none.

        Raises SettingsError, one sentence: a condition that the model does not have, a name that does not
        exist (with the nearest), a number outside its range.
        """
        labels = [None] * n if classes is None else [self._label(one) for one in classes]
        told = [{}] * n if values is None else [self._values(one) for one in values]
        texts = [None] * n if prompts is None else [self.prompt(one) for one in prompts]
        wishes = tuple(Wish(*one) for one in zip(labels, told, texts, strict=True))
        if self.classes is not None:
            self.classes.rows(labels)
        return wishes

    def prompt(self, asked: str | None) -> str | None:
        """A prompt, judged. Raises SettingsError for a model without text and for one that is too long."""
        if asked is None:
            return None
        if self.text is None:
            raise SettingsError(
                f"this model was trained without captions: it takes no prompt{self._instead()}"
            )
        if len(asked) > LONGEST:
            raise SettingsError(f"a prompt of {len(asked):,} letters: give at most {LONGEST:,}")
        return asked

    def kept(self, wish: Wish, names: Collection[str], otherwise: str | None = None) -> Wish:
        """The part of a wish that `names` these conditions; `otherwise` is said where the prompt is not."""
        return replace(
            wish,
            label=wish.label if "class" in names or "class" not in self.names else None,
            values={name: value for name, value in wish.values.items() if name in names},
            prompt=wish.prompt if "text" in names else otherwise,
        )

    def says(self, wish: Wish) -> set[str]:
        """The names of the conditions that a wish tells."""
        out = {"class"} if wish.label is not None else set[str]()
        return out | set(wish.values) | ({"text"} if wish.prompt is not None else set())

    def describe(self) -> list[str]:
        """What can be asked for, a line each, as options of `sfumato sample`."""
        out: list[str] = []
        if self.classes is not None:
            names = ", ".join(self.classes.names[:12])
            more = f" and {len(self.classes.names) - 12} more" if len(self.classes.names) > 12 else ""
            out.append(f"--class NAME: {names}{more}")
        out += [f"--set {item.name}=...: {item.possible()}" for item in self.attributes.items]
        if self.text is not None:
            out.append("--prompt TEXT: a caption like those of its training pictures")
        if self.shown is not None:
            task, column = self.shown.task, self.shown.column
            what = f"for {task} (sfumato edit)" if task else f"like those of {column} (sfumato edit follow)"
            out.append(f"a picture, {what if task or column else 'by the program that calls it'}")
        return out

    def _picture(self, picture: Tensor | None, n: int) -> dict[str, Tensor]:
        if self.shown is None:
            if picture is not None:
                raise SettingsError("this model is not told a picture, so it cannot be given one")
            return {}
        if picture is None:
            return {"picture": torch.zeros(n, *self.shown.shape)}
        if tuple(picture.shape) not in ((n, *self.shown.shape), (1, *self.shown.shape)):
            raise SettingsError(
                f"the picture that the model is told must be {(n, *self.shown.shape)}, not "
                f"{tuple(picture.shape)}"
            )
        if not picture.is_floating_point() or not bool(picture.isfinite().all()):
            raise SettingsError("the picture that the model is told must be of finite floats")
        return {"picture": picture.expand(n, -1, -1, -1)}

    def _label(self, asked: Asked | None) -> int | None:
        if asked is None:
            return None
        if self.classes is None:
            raise SettingsError(
                f"this model was trained without classes, so none can be asked for{self._instead()}"
            )
        return self.classes.find(asked)

    def _values(self, asked: Mapping[str, Said | None]) -> dict[str, Value]:
        if asked and not self.attributes.items:
            raise SettingsError(
                f"this model was trained without attributes, so none can be set{self._instead()}"
            )
        return self.attributes.parse(asked)

    def _instead(self) -> str:
        possible = [line.partition(":")[0] for line in self.describe() if line.startswith("--")]
        return f"; it takes {' and '.join(possible)}" if possible else ""


def _read(text: Reader, captions: Sequence[str]) -> dict[str, Tensor]:
    if isinstance(text, States):
        return {"context": text.states(captions)}
    return {"tokens": text.rows(captions)}


def _as(gone: Tensor, rows: Tensor) -> Tensor:
    return gone.reshape(-1, *([1] * (rows.ndim - 1)))
