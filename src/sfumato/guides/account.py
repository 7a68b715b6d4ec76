"""What a picture's account says of the guides beside its conditions: a classifier, a weaker run, a
CLIP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from sfumato.conditions.schema import LONGEST
from sfumato.guides.classifier import Judged
from sfumato.guides.clip import Pull
from sfumato.guides.weaker import Weaker
from sfumato.recipe import Recipe
from sfumato.records.part import MOST, Hash, Part, Scale

T = TypeVar("T")

Text = Annotated[str, Field(max_length=4096)]
Caption = Annotated[str, Field(max_length=LONGEST)]
Number = Annotated[int, Field(ge=0, le=2**31)]


def each_once(said: tuple[T, ...] | None) -> tuple[tuple[T, ...] | None, tuple[int, ...] | None]:
    """Each different one once, and whose is which; the latter None where it is one for all, or one for
    each."""
    different = tuple(dict.fromkeys(said or ()))
    if said is None or len(different) in (1, len(said)):
        return None if said is None else different, None
    place = {one: i for i, one in enumerate(different)}
    return different, tuple(place[one] for one in said)


def one_for_each(
    said: tuple[T, ...] | None, n: int, of: tuple[int, ...] | None = None
) -> tuple[T, ...] | None:
    """The same for each of n pictures again."""
    if said is None or of is not None:
        return None if said is None else tuple(said[i] for i in of or ())
    return said * n if len(said) == 1 else said


class JudgedSettings(Part):
    """The run's own classifier: its file's hash, and the number and name of its class for each picture."""

    scale: Scale
    sha256: Hash
    classes: Annotated[tuple[Number | None, ...], Field(min_length=1, max_length=MOST)]
    names: Annotated[dict[Text, Text], Field(max_length=MOST)]

    def named(self) -> list[str | None]:
        """The name of each picture's class."""
        return [None if number is None else self.names.get(str(number)) for number in self.classes]


class WeakerSettings(Part):
    """A weaker run, as seen from the picture's folder, and its weights."""

    scale: Scale
    run: Text
    weights: Text
    sha256: Hash

    def asked(self, home: Path) -> dict[str, Any]:
        """Arguments of `Run.recipe`, for a picture in this folder."""
        place = home / self.run
        return {"autoguide": place, "autoguide_scale": self.scale, "autoguide_weights": self.weights}


class PulledSettings(Part):
    """A CLIP, as seen from the picture's folder, its weights, and the caption of each picture, or one for
    all."""

    scale: Scale
    folder: Text
    sha256: Hash
    texts: Annotated[tuple[Caption, ...], Field(min_length=1, max_length=MOST)]
    text_of: Annotated[tuple[Number, ...], Field(max_length=MOST)] | None = None
    """The place of each picture's caption, where each different one is said once."""
    cutouts: Annotated[int, Field(ge=0, le=64)] = 0

    def captions(self, n: int) -> tuple[str, ...]:
        """One for each of n pictures."""
        return one_for_each(self.texts, n, self.text_of) or ()

    def fits(self, n: int) -> bool:
        """Whether it says captions of n pictures."""
        if self.text_of is None:
            return len(self.texts) in (1, n)
        return len(self.text_of) == n and max(self.text_of) < len(self.texts)

    def asked(self, home: Path) -> dict[str, Any]:
        """Arguments of `Run.recipe`, for a picture in this folder."""
        place = home / self.folder
        return {"clip_model": place, "clip_guidance": self.scale, "cutouts": self.cutouts}


def describe_judged(said: Judged | None) -> JudgedSettings | None:
    """What an account says of classifier guidance."""
    if said is None:
        return None
    pairs = zip(said.classes, said.names, strict=True)
    names = {str(number): name for number, name in pairs if number is not None and name is not None}
    return JudgedSettings(scale=said.scale, sha256=said.sha256, classes=said.classes, names=names)


def describe_weaker(said: Weaker | None, seen: Callable[[Path], str]) -> WeakerSettings | None:
    """What an account says of auto-guidance; `seen` says where the run is, from the picture's folder."""
    if said is None:
        return None
    return WeakerSettings(scale=said.scale, run=seen(said.run), weights=said.weights, sha256=said.sha256)


def describe_pulled(said: Pull | None, seen: Callable[[Path], str]) -> PulledSettings | None:
    """What an account says of CLIP guidance; `seen` says where the CLIP is, from the picture's folder."""
    if said is None:
        return None
    texts, of = each_once(said.texts)
    return PulledSettings(
        scale=said.scale,
        folder=seen(said.folder),
        sha256=said.sha256,
        texts=texts or (),
        text_of=of,
        cutouts=said.cutouts,
    )


def pairs_of(
    judged: JudgedSettings | None,
    weaker: WeakerSettings | None,
    pulled: PulledSettings | None,
    recipe: Recipe,
) -> list[tuple[str, str, str]]:
    """What, then and now: the guides of an account beside those that the recipe finds today."""
    pairs: list[tuple[str, str, str]] = []
    if judged is not None and recipe.judged is not None:
        pairs.append(("classifier", judged.sha256[:12], recipe.judged.sha256[:12]))
    if weaker is not None and recipe.weaker is not None:
        pairs.append(("weaker run", weaker.sha256[:12], recipe.weaker.sha256[:12]))
    if pulled is not None and recipe.pulled is not None:
        pairs.append(("CLIP", pulled.sha256[:12], recipe.pulled.sha256[:12]))
    return pairs
