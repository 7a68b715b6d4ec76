"""The denoiser of a recipe: a model with what is asked for bound to it, guided towards that.

The conditions are added one after the other in a fixed order, each step with its own scale,

    d_0 + s_1 (d_1 - d_0) + s_2 (d_2 - d_1) + ...,

where d_0 is told nothing and d_k the first k conditions (Brooks et al. 2023, eq. 3). With one scale for all
that is classifier-free guidance, and with scale 1 the conditional model itself. A negative prompt is what is
said in the prompt's place where the prompt is not told yet. What is asked for by AND and NOT adds

    s w_i (d(rest and c_i) - d(rest)),

with s its condition's scale, w_i its weight and `rest` all that is told but that condition: p(x) times
p(c_i given x and the rest)^(s w_i) (Liu et al. 2022). A weaker run stands in the same mixture; the run's
classifier and a CLIP steer what comes out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby

import torch
from torch import Tensor

from sfumato.card import ImageSettings
from sfumato.conditions.also import Also
from sfumato.conditions.nearest import match, unknown
from sfumato.conditions.schema import Conditions
from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.guidance.bound import Clipped, Thresholded
from sfumato.guidance.mix import Mix, mix, nested
from sfumato.guidance.rescale import rescaled
from sfumato.guidance.scales import Weight, added, between
from sfumato.model import Model
from sfumato.recipe import Recipe

log = logging.getLogger(__name__)

Scale = float | int | Mapping[str, float | int]
"""One scale for all conditions, or one for each by name."""


def denoiser(
    model: Model,
    conditions: Conditions,
    recipe: Recipe,
    image: ImageSettings,
    picture: Tensor | None = None,
    device: torch.device | None = None,
    told_all: Denoiser | None = None,
) -> Denoiser:
    """The model with the recipe's conditions, guidance and bound. `picture`, (B, C, H, W), is the aligned one
    that it is shown. `told_all` stands in the place of the model that is told everything, inside all
    guidance. Raises SettingsError where it is not told one."""
    if picture is None and recipe.scales.get("picture", 1) != 1:
        raise SettingsError("guidance of the picture: none is shown here: leave its scale out")
    wishes = recipe.wishes()
    negatives = recipe.negatives or (None,) * len(wishes)
    where = torch.device("cpu") if device is None else device

    @cache
    def told(names: tuple[str, ...], further: Also | None = None) -> Denoiser:
        some = [conditions.kept(w, names, other) for w, other in zip(wishes, negatives, strict=True)]
        some = some if further is None else [further.wish(conditions, wish) for wish in some]
        rows = conditions.rows(some, picture if "picture" in names else None)
        return model.given(**{name: value.to(device) for name, value in rows.items()})

    def scaled(name: str) -> Weight:
        scale = _scale(recipe, name)
        return scale if recipe.interval is None else between(scale, *recipe.interval)

    order = _order(conditions, recipe, picture is not None)
    out = whole = told(order) if told_all is None else told_all
    steps = [tuple(names) for _, names in groupby(order, lambda name: _scale(recipe, name))]
    if any(_scale(recipe, name) != 1 for name in order):
        upto = [sum(steps[:k], ()) for k in range(len(steps))]
        out = nested([*map(told, upto), whole], [scaled(names[0]) for names in steps])
    for one in recipe.also:
        rest = tuple(name for name in order if name != one.name)
        weight, back = (added((sign * one.weight, scaled(one.name))) for sign in (1, -1))
        out = mix([(out, 1.0), (told(rest, one), weight), (told(rest), back)])
    if recipe.weaker is not None:
        out = recipe.weaker.on(out, whole, recipe.weaker.told(wishes, picture, where), recipe.interval)
    if recipe.rescale and isinstance(out, Mix):
        out = rescaled(out, recipe.rescale)
    if recipe.judged is not None:
        out = recipe.judged.on(out, where, recipe.interval)
    if recipe.pulled is not None:
        out = recipe.pulled.on(out, where, recipe.interval)
    if recipe.threshold is not None:
        return Thresholded(out, recipe.threshold, image.low, image.high)
    return Clipped(out, image.low, image.high) if recipe.clip else out


def _order(conditions: Conditions, recipe: Recipe, shown: bool) -> tuple[str, ...]:
    """The conditions that are told, in the order in which they are added."""
    asked = {"picture"} if shown else set[str]()
    for wish in recipe.wishes():
        asked |= conditions.says(wish)
    if any(one is not None for one in recipe.negatives or ()):
        asked.add("text")
    return tuple(name for name in conditions.names if name in asked)


def _scale(recipe: Recipe, name: str) -> float:
    return recipe.scales.get(name, 1.0 if name == "picture" else recipe.guidance)


def scales_of(
    conditions: Conditions, asked: Scale | None, usual: float, able: bool
) -> tuple[float, dict[str, float]]:
    """The common scale and those by name. `usual` is taken where nothing is said and the model is `able` to
    be guided: something is told of every picture. Raises SettingsError, one sentence."""
    if isinstance(asked, Mapping):
        common, named = 1.0, {_named(conditions, name): float(value) for name, value in asked.items()}
    else:
        common, named = float(asked) if asked is not None else usual if able else 1.0, dict[str, float]()
    for scale in (common, *named.values()):
        if not math.isfinite(scale):
            raise SettingsError(f"guidance {scale}: give a finite number (1 is the conditional model alone)")
    strongest = max((common, *named.values()), key=lambda scale: abs(scale - 1))
    if strongest == 1 or able or "picture" in named:
        return common, named
    if not conditions.names and conditions.classes is None:
        raise SettingsError(
            f"guidance {strongest:g} needs classes, attributes or captions, and this model was trained "
            "without them: leave it out"
        )
    if not conditions.names:
        raise SettingsError(
            f'guidance {strongest:g} needs a model that also knows "no class", and this one does not: '
            f"leave it out"
        )
    options = {"class": "a class", "text": "a prompt"}
    ways = [options.get(name, name) for name in conditions.names if name != "picture"]
    raise SettingsError(
        f"guidance {strongest:g} needs {' or '.join(ways) or 'a picture'} for every picture: ask for it, or "
        "leave guidance out"
    )


def check_told(
    conditions: Conditions, recipe: Recipe, further: Sequence[Also], named: Mapping[str, float]
) -> None:
    """Raises SettingsError for the scale of a condition that no picture is told."""
    told = {"picture", *(one.name for one in further)}.union(*map(conditions.says, recipe.wishes()))
    told |= {"text"} if any(one is not None for one in recipe.negatives or ()) else set[str]()
    for name, scale in named.items():
        if scale != 1 and name not in told:
            raise SettingsError(f"guidance of {name}: nothing is told of it: say it, or leave its scale out")


def clips(image: ImageSettings, usual: bool, asked: bool | None) -> bool:
    """Whether x0 is kept in range: as asked, or as usual where the images' range is [-1, 1]."""
    unit = (image.low, image.high) == (-1.0, 1.0)
    clip = (usual and unit) if asked is None else asked
    if clip:
        log.info("every estimate of x0 is clipped to [%g, %g], as trained", image.low, image.high)
    elif usual and asked is None:
        log.info("x0 is not clipped: the images' range [%g, %g] is not [-1, 1]", image.low, image.high)
    return clip


def interval_of(said: Sequence[float | int]) -> tuple[float, float]:
    """An interval of guidance, judged: low < sigma/alpha <= high."""
    if len(said) != 2:
        raise SettingsError("the interval of guidance is two values of sigma/alpha, the lower one first")
    found = between(1.0, *said)
    return float(found.low), float(found.high)


def _named(conditions: Conditions, name: str) -> str:
    at = match(name, conditions.names)
    if at is None:
        if not conditions.names:
            raise SettingsError(f"guidance of {name[:60]!r}: this model has no conditions to guide by")
        raise unknown("guidance: no condition is called", name, conditions.names)
    return conditions.names[at]
