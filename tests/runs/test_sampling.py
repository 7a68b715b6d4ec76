"""A picture depends on its own seed alone (N17), on few threads or many (N19), and wishes are judged."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from corpora import small
from sfumato import plans
from sfumato.card import ImageSettings, SamplerSettings
from sfumato.errors import RunError, SettingsError
from sfumato.noise import Noise
from sfumato.runs import Recipe, Run
from sfumato.samplers import Sampler
from sfumato.solvers.fresh import Ancestral
from sfumato.solvers.multistep import Multistep

STOCHASTIC = ["ddpm", "dpmpp-2m-sde"]


@contextmanager
def threads(n: int) -> Iterator[None]:
    was = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(was)


def drawn(recipe: Recipe, run: Run, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[Any, ...], Tensor]:
    """Every normal that making a recipe draws, by (seed, use)."""
    found: dict[tuple[Any, ...], Tensor] = {}
    normal = Noise.normal

    def recording(self: Noise, shape: Any, *use: object) -> Tensor:
        out = normal(self, shape, *use)
        for seed, row in zip(self.seeds, out):
            assert (seed, *use) not in found or torch.equal(found[seed, *use], row)
            found[seed, *use] = row.clone()
        return out

    with monkeypatch.context() as patch:
        patch.setattr(Noise, "normal", recording)
        run.make(recipe)
    return found


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_the_noise_of_a_picture_is_bit_equal_in_every_batch(
    sampler: str, pets: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: dict[str, Any] = {"classes": "cat", "steps": 4, "sampler": sampler}
    whole = drawn(pets.recipe(6, seed=10, **kinds), pets, monkeypatch)
    parts = drawn(pets.recipe(6, seed=10, batch=4, **kinds), pets, monkeypatch)
    alone = drawn(pets.recipe(1, seed=13, **kinds), pets, monkeypatch)
    assert whole.keys() == parts.keys()
    assert len(whole) == 6 * 4  # the start and three draws: the last move adds none
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert set(alone) < set(whole)
    assert all(torch.equal(whole[key], row) for key, row in alone.items())


@pytest.mark.parametrize("sampler", ["ddim", *STOCHASTIC, "dpmpp-2m", "flow-heun"])
def test_a_picture_depends_on_its_seed_alone(sampler: str, pets: Run) -> None:
    classes = ["cat", "dog", "ox", "cat", "dog"]
    kinds: dict[str, Any] = {"steps": 5, "sampler": sampler, "guidance": 2.0, "clip": True}
    whole = pets.sample(classes=classes, seed=3, **kinds)
    assert len({row.numpy().tobytes() for row in whole}) == 5
    for batch in (1, 2, 3):
        assert (pets.sample(classes=classes, seed=3, batch=batch, **kinds) - whole).abs().max() <= 1e-5
    order = [4, 2, 0, 3, 1]
    turned = pets.sample(classes=[classes[i] for i in order], seeds=[3 + i for i in order], **kinds)
    assert (turned - whole[order]).abs().max() <= 1e-5
    company = pets.sample(classes=["ox", "dog", "ox"], seeds=[99, 4, 98], **kinds)
    assert (company[1] - whole[1]).abs().max() <= 1e-5


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_one_by_one_is_bitwise(sampler: str, pets: Run) -> None:
    kinds: dict[str, Any] = {"steps": 5, "sampler": sampler, "guidance": 3.0, "one_by_one": True}
    whole = pets.sample(4, classes="dog", seed=0, **kinds)
    for i in range(4):
        assert torch.equal(pets.sample(1, classes="dog", seed=i, **kinds)[0], whole[i])
    assert torch.equal(pets.sample(classes=["ox", "dog"], seeds=[7, 2], **kinds)[1], whole[2])


def test_again_is_bitwise_and_other_threads_are_close(pets: Run) -> None:
    kinds: dict[str, Any] = {"classes": "cat", "steps": 6, "sampler": "ddpm", "guidance": 2.0}
    with threads(1):
        one = pets.sample(5, **kinds)
        assert torch.equal(pets.sample(5, **kinds), one)
    with threads(2):
        two = pets.sample(5, **kinds)
        assert torch.equal(pets.sample(5, **kinds), two)
    assert (one - two).abs().max() <= 1e-5


def test_two_threads_on_one_model_get_what_each_gets_alone(pets: Run) -> None:
    wishes: list[dict[str, Any]] = [
        {"classes": "cat", "seed": 1, "sampler": "ddpm", "steps": 12},
        {"classes": "ox", "seed": 5, "sampler": "dpmpp-2m", "steps": 12, "guidance": 2.0},
    ]
    alone = [pets.sample(3, **wish) for wish in wishes]
    found: dict[int, Tensor] = {}
    both = [
        threading.Thread(target=lambda i=i: found.update({i: pets.sample(3, **wishes[i])})) for i in (0, 1)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert all((found[i] - alone[i]).abs().max() <= 1e-5 for i in (0, 1))


def test_a_walk_ends_where_the_picture_is(pets: Run) -> None:
    recipe = pets.recipe(2, classes="ox", steps=7, guidance=1.5)
    steps = list(pets.walk(recipe))
    assert [step.i for step in steps] == list(range(7))
    assert torch.equal(pets.finished(steps[-1].x, recipe), pets.make(recipe))
    estimate = steps[3].estimate
    assert estimate is not None
    assert estimate.x0.shape == (2, 1, 8, 8)


def test_guidance_is_the_affine_mixture(pets: Run) -> None:
    """One step of DDIM to clean data is the estimate itself, so pictures add up like estimates."""
    kinds: dict[str, Any] = {"steps": 1, "clip": False, "seed": 4}

    def estimate(classes: str | None, guidance: float | None) -> Tensor:
        recipe = pets.recipe(1, classes=classes, guidance=guidance, **kinds)
        return list(pets.walk(recipe))[-1].x

    with_class, without = estimate("dog", 1.0), estimate(None, None)
    assert not torch.equal(with_class, without)
    torch.testing.assert_close(
        estimate("dog", 3.0), without + 3 * (with_class - without), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(estimate("dog", 0.0), without, rtol=0, atol=1e-5)


def test_guidance_one_asks_the_network_half_as_often(pets: Run) -> None:
    rows: list[int] = []
    hook = pets.model.network.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    pets.sample(2, classes="cat", steps=3, guidance=1.0)
    pets.sample(2, classes="cat", steps=3, guidance=2.0)
    hook.remove()
    assert rows == [2, 2, 2, 4, 4, 4]


def test_the_card_is_used_where_nothing_is_said(tmp_path: Path) -> None:
    own = SamplerSettings(name="dpmpp-2m", steps=9, guidance=2.5)
    run = small.make(tmp_path / "run", small.card(classes=small.CLASSES, sampler=own))
    recipe = run.recipe(classes="ox")
    assert (recipe.sampler, recipe.steps, recipe.guidance, recipe.clip) == ("dpmpp-2m", 9, 2.5, True)
    assert run.recipe().guidance == 1.0  # no class was asked for, so there is nothing to guide to
    assert run.recipe(classes="ox", steps=3, sampler="ddpm", guidance=1.0).steps == 3
    assert run.recipe(classes=["0", 1, "OX", None], guidance=1.0).classes == (0, 1, 2, None)


def test_clipping_is_on_where_it_was_trained_and_only_for_unit_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sfumato")
    wide = ImageSettings(channels=1, height=8, width=8, low=-4.0, high=4.0)
    run = small.make(tmp_path / "wide", small.card(image=wide))
    assert run.recipe().clip is False
    assert "not [-1, 1]" in caplog.text
    caplog.clear()
    assert small.make(tmp_path / "unit", small.card()).recipe().clip is True
    assert "clipped to [-1, 1]" in caplog.text
    assert small.make(tmp_path / "off", small.card(clip=False)).recipe().clip is False
    estimates = [s.estimate for s in run.walk(run.recipe(3, clip=True, steps=4))]
    assert all(e is not None and float(e.x0.abs().max()) <= 4 for e in estimates)


def test_a_sampler_may_be_an_object(pets: Run) -> None:
    mine = Sampler(Multistep(order=1), Ancestral(0.3), plans.leading)
    assert pets.sample(1, sampler=mine, steps=4).shape == (1, 1, 8, 8)
    named = pets.sample(1, sampler="ddim", eta=0.3, steps=4)
    assert torch.equal(named, pets.sample(1, sampler=Sampler(Multistep(order=1), Ancestral(0.3)), steps=4))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such class": ({"classes": "catt"}, "did you mean cat"),
    "far from any class": ({"classes": "zzzzzz"}, "there are cat, dog, ox"),
    "class number": ({"classes": 3}, "0 to 2"),
    "class number as text": ({"classes": "7"}, "no class 7"),
    "negative class": ({"classes": -1}, "no class -1"),
    "lists do not agree": ({"classes": ["cat", "dog"], "n": 3}, "do not agree"),
    "seeds do not agree": ({"seeds": [1, 2], "n": 3}, "do not agree"),
    "no pictures": ({"n": 0}, "0 pictures"),
    "no seeds": ({"seeds": []}, "0 pictures"),
    "too many": ({"n": 10**9}, "1000000000 pictures"),
    "no steps": ({"steps": 0}, "steps cannot be 0"),
    "no batch": ({"batch": 0}, "batch cannot be 0"),
    "sampler": ({"sampler": "dim"}, "ddim"),
    "eta": ({"sampler": "ddim", "eta": 2.0}, "eta"),
    "eta with an object": ({"sampler": Sampler(Multistep()), "eta": 0.5}, "Sampler object"),
    "guidance nan": ({"classes": "cat", "guidance": math.nan}, "finite"),
    "guidance inf": ({"classes": "cat", "guidance": math.inf}, "finite"),
    "guidance without a class": ({"guidance": 2.0}, "needs a class"),
    "seed too large": ({"seed": 2**63}, "63 bits"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_wish_is_one_sentence(what: str, pets: Run) -> None:
    asked, words = WRONG[what]
    with pytest.raises(SettingsError, match=words) as found:
        pets.sample(**asked)
    assert "\n" not in str(found.value)


def test_a_model_without_classes_refuses_them(plain: Run) -> None:
    with pytest.raises(SettingsError, match="without classes"):
        plain.sample(1, classes="cat")
    with pytest.raises(SettingsError, match="without them"):
        plain.sample(1, guidance=2)
    assert torch.equal(plain.sample(1, steps=2, guidance=1), plain.sample(1, steps=2))


def test_a_model_without_a_null_class_wants_a_class(tmp_path: Path) -> None:
    network = small.unet(1, 3, null_class=False)
    run = small.make(tmp_path / "run", small.card(classes=small.CLASSES, network=network))
    assert run.sample(1, classes="cat", steps=2).shape == (1, 1, 8, 8)
    with pytest.raises(SettingsError, match="needs a class"):
        run.sample(1)
    with pytest.raises(SettingsError, match="no class"):
        run.sample(1, classes="cat", guidance=2.0)


def test_a_plan_that_the_model_cannot_follow_is_refused_before_the_first_step(tmp_path: Path) -> None:
    from sfumato.tables import Table

    run = small.make(tmp_path / "run", small.card(schedule=Table.linear().zero_terminal_snr()))
    with pytest.raises(SettingsError, match="use V or Flow"):
        run.sample(1, steps=4)


def test_a_picture_that_is_not_finite_is_never_given(plain: Run) -> None:
    with torch.no_grad():
        plain.model.network.get_parameter("conv_out.bias").fill_(math.inf)
    with pytest.raises(RunError, match="seed 5 is not finite"):
        plain.sample(2, steps=2, seed=5, clip=False)
