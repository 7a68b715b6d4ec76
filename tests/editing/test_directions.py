"""Directions: where the structure is linear and known, what is found spans it; and sliders go along it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sfumato import plans
from sfumato.denoiser import Exact
from sfumato.editing.directions import (
    Directions,
    Listening,
    Slid,
    load_directions,
    picture_of,
    principal_features,
    principal_noise,
    save_directions,
    slide,
)
from sfumato.editing.job import Job, finished, perform
from sfumato.errors import ModelFileError, SettingsError
from sfumato.files import write_tensors
from sfumato.level import Level
from sfumato.networks.probe import probed
from sfumato.noise import Noise
from sfumato.plans import descend
from sfumato.samplers import sampler
from sfumato.tables import Table

SHAPE = (1, 4, 5)
SIZE = 20
BASIS = torch.linalg.qr(Noise((7,)).normal((SIZE, SIZE), "basis")[0].double())[0]
STDS = torch.tensor([0.9, 0.5, 0.25] + [0.01] * (SIZE - 3)).double()
LEVELS = plans.trailing(Table.cosine(), 8)


def gaussian() -> Exact:
    """Pictures N(0, B diag(std^2) B^T): three attributes, in directions that no pixel shows."""

    def mean(x: Tensor, level: Level) -> Tensor:
        a, s = float(level.alpha), float(level.sigma)
        gain = a * STDS**2 / (a**2 * STDS**2 + s**2)
        return (x.flatten(1).double() @ (BASIS * gain) @ BASIS.T).reshape(x.shape).to(x)

    return Exact(mean)


def with_a_middle() -> Exact:
    """The same as a network that has its first three coordinates in its middle, (B, 3, 1, 1)."""
    inner = gaussian()

    def mean(x: Tensor, level: Level) -> Tensor:
        x0 = inner(x, level).x0.flatten(1).double()
        h = (x0 @ BASIS[:, :3])[..., None, None]
        rest = x0 - h.flatten(1) @ BASIS[:, :3].T
        seen = probed("bottleneck", h.to(x)).flatten(1).double()
        return (rest + seen @ BASIS[:, :3].T).reshape(x.shape).to(x)

    return Exact(mean)


def heard(rows: int) -> Listening:
    listening = Listening(with_a_middle())
    x = Noise(tuple(range(rows))).normal(SHAPE, "start")
    for _ in perform(Job(listening, x, descend(LEVELS)), sampler("ddim"), Noise(tuple(range(rows)))):
        pass
    return listening


def test_noise_directions_are_the_data_s_principal_components() -> None:
    """The flow of a Gaussian scales each component by a factor that grows with its deviation."""
    x = Noise((0, 1)).normal(SHAPE, "start").double()
    found = principal_noise(picture_of(gaussian(), LEVELS), x, LEVELS[0], 3)
    flat = found.vectors.flatten(1).double()
    assert torch.allclose(flat @ flat.T, torch.eye(3).double(), atol=1e-6)
    assert torch.allclose((flat @ BASIS[:, :3]).abs(), torch.eye(3).double(), atol=1e-3)
    moved = picture_of(gaussian(), LEVELS)(BASIS[:, :3].T.reshape(3, *SHAPE)).flatten(1).norm(dim=1)
    assert torch.allclose(found.strength, moved, rtol=1e-3)


def test_feature_directions_are_those_of_the_middle_by_their_deviation() -> None:
    listening = heard(200)
    assert len(listening.features) == len(LEVELS) - 1
    found = principal_features(listening.features, listening.angles, 3)
    flat = found.vectors.flatten(1).double()
    assert torch.allclose(flat @ flat.T, torch.eye(3).double(), atol=1e-5)
    assert float(found.strength.sum()) == pytest.approx(1)
    share = found.vectors.flatten(2).square().sum(1).double()  # (K, 3): how much each is of each coordinate
    assert torch.allclose(share, torch.eye(3).double(), atol=0.1)
    stacked = torch.cat([h.flatten(1) for h in listening.features], 1).double()
    direct = torch.linalg.svdvals(stacked - stacked.mean(0))[:3] / (len(stacked) - 1) ** 0.5
    assert torch.allclose(found.scale, direct, rtol=1e-5)


def test_a_slider_moves_the_picture_along_its_own_direction_alone() -> None:
    listening = heard(200)
    found = principal_features(listening.features, listening.angles, 3)
    amounts = torch.tensor([-2.0, 0.0, 2.0])
    x, noise, how = Noise((5,)).normal(SHAPE, "start"), Noise((0, 0, 0)), sampler("ddim")
    made = finished(slide(with_a_middle(), x, LEVELS, found, 0, amounts), how, noise).flatten(1).double()
    plain = finished(Job(gaussian(), x, descend(LEVELS)), how, Noise((0,))).flatten(1).double()
    assert torch.allclose(made[1], plain[0], atol=1e-5)
    moved = ((made - made[1]) @ BASIS).abs()
    assert bool((moved[[0, 2], 0] > 10 * moved[[0, 2]][:, 1:].max()).all())
    assert torch.allclose(made[2] - made[1], made[1] - made[0], atol=1e-5)


def test_a_stacked_batch_is_moved_in_each_part_and_rows_keep_their_amounts() -> None:
    vectors = torch.ones(1, 1, 3, 1, 1)
    found = Directions("features", vectors, torch.tensor([1.0]).double(), torch.ones(1), torch.ones(1))

    seen: list[Tensor] = []

    def twice(x: Tensor, level: Level) -> Tensor:
        seen.append(probed("bottleneck", torch.zeros(2 * len(x), 3, 1, 1)))
        return x

    slid = Slid(Exact(twice), found, 0, torch.tensor([1.0, -3.0]))
    slid(torch.zeros(2, *SHAPE), LEVELS[3])
    assert seen[0][:, 0, 0, 0].tolist() == [1, -3, 1, -3]
    slid.take([1])(torch.zeros(1, *SHAPE), LEVELS[3])
    assert seen[1][:, 0, 0, 0].tolist() == [-3, -3]


def test_noise_sliders_move_the_start() -> None:
    x = Noise((0, 1)).normal(SHAPE, "start").double()
    found = principal_noise(picture_of(gaussian(), LEVELS), x, LEVELS[0], 2)
    job = slide(gaussian(), x[:1], LEVELS, found, 1, torch.tensor([0.0, 1.5]))
    assert torch.equal(job.x[0], x[0])
    assert float((job.x[1] - x[0]).norm()) == pytest.approx(1.5)
    with pytest.raises(SettingsError, match="shape"):
        slide(gaussian(), torch.zeros(1, 1, 2, 2), LEVELS, found, 0, torch.zeros(1))


def test_what_cannot_be_listened_to_is_refused() -> None:
    with pytest.raises(SettingsError, match="middle"):
        Listening(gaussian())(torch.zeros(2, *SHAPE), LEVELS[0])
    listening = heard(4)
    for count in (0, 4):
        with pytest.raises(SettingsError, match="directions from 4"):
            principal_features(listening.features, listening.angles, count)
    found = principal_features(listening.features, listening.angles, 2)
    with pytest.raises(SettingsError, match="no direction 3"):
        found.chosen(3)
    with pytest.raises(SettingsError, match="another model"):
        Slid(Exact(lambda x, level: probed("bottleneck", x)), found, 0, torch.zeros(1))(
            torch.zeros(1, *SHAPE), LEVELS[0]
        )


def test_directions_are_kept_in_a_file(tmp_path: Path) -> None:
    listening = heard(10)
    found = principal_features(listening.features, listening.angles, 2)
    save_directions(tmp_path / "d.safetensors", found, {"weights": "abc"})
    again, about = load_directions(tmp_path / "d.safetensors")
    assert about == {"weights": "abc"}
    assert again.space == "features"
    assert torch.equal(again.vectors, found.vectors)
    assert torch.equal(again.angles, found.angles)
    write_tensors(tmp_path / "other.safetensors", {"noise": torch.zeros(1, 2, 2)})
    with pytest.raises(ModelFileError, match="no directions"):
        load_directions(tmp_path / "other.safetensors")
    parts = {name: getattr(found, name) for name in ("vectors", "angles", "scale", "strength")}
    write_tensors(
        tmp_path / "odd.safetensors", parts | {"angles": torch.zeros(3)}, {"space": "noise", "about": "{}"}
    )
    with pytest.raises(ModelFileError, match="fit together"):
        load_directions(tmp_path / "odd.safetensors")
