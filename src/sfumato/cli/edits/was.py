"""What a picture is before it is changed: the conditions under which it is taken back to its noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from sfumato.cli.edits.easel import Easel, fitted, in_range
from sfumato.cli.edits.starts import noise_of
from sfumato.cli.wishes import settings_of
from sfumato.denoiser import Denoiser
from sfumato.editing.img2img import start_of
from sfumato.editing.invert import check_plain, invert
from sfumato.editing.job import Bench
from sfumato.errors import SettingsError
from sfumato.level import Levels
from sfumato.runs import Recipe, Run


@dataclass(frozen=True)
class Was:
    """The options --was-class, --was-prompt and --was-set."""

    class_: str | None = None
    prompt: str | None = None
    values: tuple[str, ...] = ()

    @property
    def told(self) -> bool:
        """Whether anything is said."""
        return self.class_ is not None or self.prompt is not None or bool(self.values)

    def recipe(self, b: Bench) -> Recipe:
        """The bench's recipe under these conditions in place of its own; unguided where nothing is said."""
        values = settings_of(self.values, "--was-set")
        told = retold(b.run, b.recipe, self.class_, self.prompt, values)
        return told if self.told else replace(told, negatives=None, guidance=1.0, scales={})


def retold(
    run: Run,
    recipe: Recipe,
    class_: str | None,
    prompt: str | None,
    values: Mapping[str, str] | None = None,
) -> Recipe:
    """The recipe with these conditions in place of its own. A classifier pulls towards this class, a CLIP
    towards this prompt, or not at all where none is said; nothing is asked for beside them by AND and
    NOT."""
    judged = recipe.judged if class_ is not None else None
    pulled = recipe.pulled if prompt is not None else None
    said = run.recipe(
        len(recipe.seeds),
        classes=class_,
        prompt=prompt,
        set=values,
        guidance=1,
        classifier_guidance=0.0 if judged is None else judged.scale,
        clip_model=None if pulled is None else pulled.folder,
        clip_guidance=1.0 if pulled is None else pulled.scale,
        cutouts=0 if pulled is None else pulled.cutouts,
    )
    told = replace(recipe, classes=said.classes, prompts=said.prompts, values=said.values, also=())
    return replace(told, judged=said.judged, pulled=said.pulled)


def taken_back(easel: Easel, b: Bench, source: Denoiser, strength: float) -> tuple[Tensor, Levels]:
    """The easel's picture as noise, a row for each result, at the level to which this strength takes it back,
    and the levels from there down. A noise file is that noise already, of the whole way."""
    shown, levels = easel.pixels(), b.levels.cut(start_of(strength, b.levels), len(b.levels))
    if shown.dtype.kind == "f":
        if strength != 1:
            raise SettingsError(f"{easel.images[0]} is noise of strength 1: leave --strength out")
        return b.each(noise_of(b, shown, easel.images[0])[0]), levels
    check_plain(b.how)
    picture = b.rows(in_range(b.run, fitted(b.run, shown, easel.images[0], easel.resize)))
    return invert(source, picture, levels).x, levels
