"""Randomness by key: the same numbers in any batch, order and thread, and pinned for ever."""

import threading
from typing import SupportsIndex

import numpy as np
import pytest
import torch
from torch import nn

from sfumato import noise as noise_module
from sfumato.errors import SettingsError
from sfumato.noise import (
    Dropout,
    Noise,
    generator,
    key_of,
    number_dropouts,
    permutation,
    seeded,
    streams,
    uniform,
    whole,
)
from sfumato.recipe import Recipe


def test_the_stream_is_pinned() -> None:
    """If this fails after an upgrade of torch, old pictures cannot be replayed: raise STREAM and say so in
    CHANGELOG.md."""
    assert noise_module.STREAM == 1
    assert key_of(0, "start") == 4801040339590912508
    first = Noise((0,)).normal((4,), "start")[0]
    assert torch.allclose(first, torch.tensor([0.10793992, -1.05731297, 0.26507038, 1.74831629]), atol=1e-6)


def test_a_row_depends_on_its_seed_alone() -> None:
    whole = Noise((3, 1, 2)).normal((2, 5), "step", 7)
    assert torch.equal(whole[1], Noise((1,)).normal((2, 5), "step", 7)[0])
    assert torch.equal(whole[[2, 0]], Noise((3, 1, 2)).take([2, 0]).normal((2, 5), "step", 7))


@pytest.mark.parametrize("seed", [True, np.int64(1), np.uint8(1), torch.tensor(1)], ids=repr)
def test_a_whole_number_of_any_kind_is_the_same_seed(seed: SupportsIndex) -> None:
    assert repr(whole(seed)) == "1"


def test_a_seed_is_made_a_plain_number_where_it_is_kept() -> None:
    """True is an int to Python, and prints otherwise, as numpy's 1 does."""
    assert torch.equal(Noise((True,)).normal((3,), "start"), Noise((1,)).normal((3,), "start"))
    seeds = Recipe((True,), None, "ddim", 5, None, 1.0, False).seeds
    assert repr(seeds) == "(1,)"
    with pytest.raises(SettingsError, match="whole number"):
        whole(torch.tensor(1.5))


def test_uses_and_seeds_give_unrelated_numbers() -> None:
    draws = torch.stack(
        [
            Noise((seed,)).normal((20_000,), *use)[0]
            for seed in (0, 1)
            for use in (("a", 1), ("a", 2), ("b", 1))
        ]
    )
    correlation = torch.corrcoef(draws) - torch.eye(len(draws))
    assert float(correlation.abs().max()) < 5 / 20_000**0.5
    assert float((draws.mean(1).abs()).max()) < 5 / 20_000**0.5


def test_keys_do_not_collide_by_concatenation() -> None:
    assert key_of(1, 23) != key_of(12, 3)
    assert key_of("a", 1) != key_of("a", "1")
    assert len({key_of(i) for i in range(10_000)}) == 10_000


def test_threads_do_not_disturb_each_other() -> None:
    out: dict[int, torch.Tensor] = {}

    def work(k: int) -> None:
        out[k] = torch.cat([Noise((k,)).normal((50,), "use", i) for i in range(50)])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, drawn in out.items():
        assert torch.equal(drawn, torch.cat([Noise((k,)).normal((50,), "use", i) for i in range(50)]))


def test_nothing_moves_the_global_state() -> None:
    before = torch.get_rng_state()
    Noise((1,)).normal((3,), "x")
    permutation(10, "order", 0)
    uniform(3, "u")
    with seeded("weights", 0):
        nn.Linear(3, 3)
    assert torch.equal(before, torch.get_rng_state())


def test_initial_weights_are_a_function_of_their_key() -> None:
    def weights(seed: int) -> torch.Tensor:
        with seeded(seed, "weights"):
            return nn.Linear(5, 5).weight.detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_a_permutation_is_one() -> None:
    order = permutation(100, 1, "order", 0)
    assert torch.equal(order.sort().values, torch.arange(100))
    assert not torch.equal(order, permutation(100, 1, "order", 1))
    assert generator(1).initial_seed() == key_of(1)


def test_dropout_belongs_to_the_sample() -> None:
    net = nn.Sequential(Dropout(0.4), Dropout(0.4)).train()
    number_dropouts(net)
    x, noise = torch.ones(3, 1000), Noise((5, 6, 7))
    with streams(noise):
        whole = net(x)
    with streams(noise.take([2, 0])):
        part = net(x[:2])
    assert torch.equal(part, whole[[2, 0]])
    kept = float((whole > 0).float().mean())
    assert abs(kept - 0.36) < 4 * (0.36 * 0.64 / 3000) ** 0.5  # two independent masks
    assert abs(float(whole.mean()) - 1) < 0.1
    assert torch.equal(net.eval()(x), x)


def test_dropout_without_streams_is_a_programming_error() -> None:
    with pytest.raises(RuntimeError, match="streams"):
        Dropout(0.5).train()(torch.ones(1, 2))
    with streams(Noise((1, 2))), pytest.raises(RuntimeError, match="2 streams for a batch of 1"):
        Dropout(0.5).train()(torch.ones(1, 2))
