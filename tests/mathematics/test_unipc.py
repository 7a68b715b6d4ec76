"""UniPC: its order p + 1, its peer, and that a corrector never undoes a hook or fresh noise."""

import math
from collections.abc import Callable

import pytest
import torch
from diffusers import UniPCMultistepScheduler
from oracles import MIXTURE, exact
from slopes import error, even_in_log_snr, slope
from torch import Tensor

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.errors import SettingsError
from sfumato.level import Level, Levels
from sfumato.noise import Noise
from sfumato.sampling import sample, walk
from sfumato.schedules import VE, Cosine, Linear, RectifiedFlow, Schedule
from sfumato.solvers.clocks import Clock
from sfumato.solvers.frames import Frame
from sfumato.solvers.fresh import Ode, Sde
from sfumato.solvers.multistep import Kind, Multistep
from sfumato.solvers.unipc import UniPC


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [Linear(), RectifiedFlow(), VE()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_unipc_p_is_of_order_p_plus_one(p: int, schedule: Schedule) -> None:
    solver, steps = UniPC(p), 40 if p == 4 else 80
    coarse, fine = (error(solver, even_in_log_snr(schedule, n, p - 1), p - 1) for n in (steps, 2 * steps))
    assert slope(coarse, fine) > solver.order - 0.2
    assert solver.order == p + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("p", "frame", "clock", "kind"),
    [
        (1, "x0", "log_snr", "bh1"),
        (2, "x0", "log_snr", "bh1"),
        (2, "eps", "log_snr", "midpoint"),
        (2, "v", "log_snr", "exact"),
        (2, "flow", "linear", "exact"),
    ],
)
def test_so_it_is_in_other_frames_with_its_real_start(p: int, frame: Frame, clock: Clock, kind: Kind) -> None:
    """The first move, of order one, is corrected to order two: its error of h^3 costs nothing up to order
    3."""
    solver = UniPC(p, frame, clock, kind)
    coarse, fine = (error(solver, even_in_log_snr(Linear(), n)) for n in (80, 160))
    assert slope(coarse, fine) > p + 0.8


def peer(p: int, kind: str, steps: int, x: Tensor) -> tuple[Levels, list[Tensor]]:
    """diffusers' scheduler on the exact denoiser: its levels, and x after each step but the last."""
    scheduler = UniPCMultistepScheduler(
        solver_order=p, solver_type=kind, lower_order_final=False, beta_start=1e-4, beta_end=0.02
    )
    scheduler.set_timesteps(steps)
    ratio = scheduler.sigmas.double()
    norm = torch.hypot(torch.ones_like(ratio), ratio)
    levels, out = Levels(1 / norm, ratio / norm), []
    for i, t in enumerate(scheduler.timesteps[:-1]):
        x = scheduler.step(exact(MIXTURE)(x, levels[i]).eps, t, x).prev_sample
        out.append(x)
    return levels, out


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers on numpy 2
@pytest.mark.parametrize(("p", "theirs", "ours"), [(1, "bh2", "midpoint"), (2, "bh2", "midpoint"),
    (3, "bh2", "midpoint"), (2, "bh1", "bh1")])  # fmt: skip
def test_parity_with_diffusers(p: int, theirs: str, ours: Kind) -> None:
    """To all but the last step, where at order 3 diffusers has a singular system. Its sigmas are float."""
    x = Noise(tuple(range(16))).normal((2,), "start").double()
    levels, ends = peer(p, theirs, 12, x)
    steps = walk(exact(MIXTURE), x, plans.descend(levels), UniPC(p, kind=ours))
    for step, end in zip(steps, ends, strict=False):
        assert torch.allclose(step.x, end, atol=5e-5)


@pytest.mark.parametrize("schedule", [RectifiedFlow(), Cosine(), Linear()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("p", [1, 2, 3, 4])
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_few_steps_from_the_noisiest_level_to_clean_data(p: int, schedule: Schedule, steps: int) -> None:
    plan = plans.descend(plans.trailing(schedule, steps))
    for solver in (UniPC(p), UniPC(p, "v"), UniPC(p, "flow", "linear", "exact")):
        x = sample(exact(MIXTURE), (2,), plan, solver, range(32))
        if steps == 1:
            assert torch.allclose(x.double(), MIXTURE.mean.expand(32, 2), atol=1e-2)
        assert bool(torch.isfinite(x).all())
        assert float(x.abs().max()) < 3


def ends(solver: UniPC | Multistep, after: Callable[[Tensor, Level, int], Tensor] | None = None) -> Tensor:
    plan = plans.descend(plans.log_snr(Linear(), 8, high=80.0))
    x = Noise(tuple(range(8))).normal((2,), "start").double()
    for step in walk(exact(MIXTURE), x, plan, solver, after=after):
        x = step.x
    return x


def test_a_move_after_a_hook_is_not_corrected() -> None:
    """Where every move is followed by a change of x, what remains is the predictor, to the bit."""
    paste = lambda x, level, i: torch.cat([x[:, :1] * 0 + 0.3 * level.alpha, x[:, 1:]], dim=1)
    write = lambda x, level, i: x.mul_(1.01)
    watch = lambda x, level, i: x
    corrected, plain = UniPC(2, kind="exact"), Multistep(order=2)
    assert torch.equal(ends(corrected, paste), ends(plain, paste))
    assert torch.equal(ends(corrected, paste)[:, 0], torch.full((8,), 0.3, dtype=torch.float64))
    assert torch.equal(ends(corrected, write), ends(plain, write))
    assert torch.equal(ends(corrected, watch), ends(corrected))
    assert not torch.allclose(ends(corrected), ends(plain), atol=1e-4)
    once = lambda x, level, i: x + 0.1 if i == 3 else x  # the other moves are corrected
    assert not torch.allclose(ends(corrected, once), ends(plain, once), atol=1e-4)
    with torch.inference_mode():
        assert torch.equal(ends(corrected), ends(corrected, watch))


def test_a_move_with_fresh_noise_is_not_corrected() -> None:
    """On Gaussian data the end of the reverse SDE has the data's deviation, as with the predictor alone."""
    plan = plans.descend(plans.log_snr(Linear(), 40, high=80.0))
    noise = Noise(tuple(range(2000)))
    found = []
    for solver in (UniPC(2, kind="exact"), Multistep(order=2)):
        x = noise.normal((1,), "start")
        for step in walk(exact(Mixture.gaussian([0.2], [0.4])), x, plan, solver, noise, Sde()):
            x = step.x
        found.append(x)
    assert torch.equal(found[0], found[1])
    assert float(found[0].mean()) == pytest.approx(0.2, abs=4 * 0.4 / math.sqrt(2000))
    assert float(found[0].std()) == pytest.approx(0.4, abs=4 * 0.4 / math.sqrt(4000) + 0.01)


def test_a_renoised_trajectory_starts_anew() -> None:
    levels = plans.log_snr(Linear(), 8, high=80.0)
    noise = Noise(tuple(range(8)))
    x = noise.normal((2,), "start").double()
    plan = plans.repaint(levels, jump=4, times=2)
    states = list(walk(exact(MIXTURE), x, plan, UniPC(2), noise, Ode()))
    cut = next(i for i, step in enumerate(states) if step.estimate is None)
    again = list(walk(exact(MIXTURE), states[cut].x, plan[cut + 1 :], UniPC(2), noise, Ode()))
    until = next((i for i, step in enumerate(states[cut + 1 :]) if step.estimate is None), len(again))
    for a, b in zip(states[cut + 1 : cut + 1 + until], again[:until], strict=True):
        assert torch.equal(a.x, b.x)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SettingsError, match="order 0"):
        UniPC(0)
    with pytest.raises(SettingsError, match="bh1"):
        UniPC(2, "v", "log_snr", "bh1")
