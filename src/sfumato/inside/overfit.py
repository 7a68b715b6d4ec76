"""What the losses of a run say, in sentences: how far it is from the best, and how much it knows by heart."""

from __future__ import annotations

from torch import Tensor

from sfumato.inside.losses import Losses

_NEAR = 1.1
"""Up to this times the ideal loss counts as having reached it."""
_NOTHING = 0.01
"""An ideal loss below this share of the network's: there a point of the set is found again by itself."""


def memorised(losses: Losses) -> tuple[float, float] | None:
    """(held-out - training) / (held-out - ideal), of losses averaged over the levels, and its standard error.

    0: training and held-out pictures are alike to the network. 1: its training loss is the ideal denoiser's,
    so it has learnt the pictures by heart. None without held-out pictures, or where nothing tells the two
    apart.
    """
    if losses.held is None or min(len(losses.held.network), len(losses.train.network)) < 2:
        return None
    train, best, held = (
        each.mean(1) for each in (losses.train.network, losses.train.ideal, losses.held.network)
    )
    room = float(held.mean() - best.mean())
    if room <= 0:
        return None
    share = float(held.mean() - train.mean()) / room
    # the first-order error of the quotient: held-out and training pictures vary independently
    from_held = float(held.std()) / len(held) ** 0.5 * (1 - share) / room
    from_train = float((train - share * best).std()) / len(train) ** 0.5 / room
    return share, (from_held**2 + from_train**2) ** 0.5


def overfit(losses: Losses) -> tuple[float, float] | None:
    """Held-out loss / training loss, of losses averaged over the levels, and its standard error."""
    if losses.held is None or min(len(losses.held.network), len(losses.train.network)) < 2:
        return None
    train, held = losses.train.network.mean(1), losses.held.network.mean(1)
    ratio = float(held.mean() / train.mean())
    spread = [float(each.std() / each.mean()) / len(each) ** 0.5 for each in (train, held)]
    return ratio, ratio * (spread[0] ** 2 + spread[1] ** 2) ** 0.5


def reading(losses: Losses) -> list[str]:
    """Sentences for people: the gap, where the network is as good as can be, where it could know by heart."""
    said: list[str] = []
    if not losses.same:
        said.append(
            "The run was not trained on these very pictures (or not at this cut and size): what is called "
            "training loss here is the loss on those of them that are not held out."
        )
    said += _gap(losses)
    said += _against_the_ideal(losses)
    share = memorised(losses)
    if share is not None:
        said.append(
            f"Of the way from treating all pictures alike (0) to knowing the training pictures by heart (1) "
            f"it has gone {share[0]:.2f} ± {share[1]:.2f}."
        )
    return said


def _gap(losses: Losses) -> list[str]:
    found = overfit(losses)
    if losses.held is None or found is None:
        return ["No overfit can be told: too few pictures are held out."]
    ratio, error = found
    each = losses.held.mean / losses.train.mean
    most = int(each.argmax())
    verdict = (
        "no overfit that so many pictures can show"
        if ratio < 1 + 2 * error
        else f"an overfit, the most {float(each[most]):.2f} times at log-SNR "
        f"{float(losses.level.log_snr[most]):.1f}"
    )
    return [f"The held-out loss is {ratio:.3f} ± {error:.3f} times the training loss: {verdict}."]


def _against_the_ideal(losses: Losses) -> list[str]:
    """Levels go from clean to noisy: what holds from some level to the end holds wherever it is noisier."""
    log_snr, train, best = losses.level.log_snr, losses.train.mean, losses.train.ideal.mean(0)
    said: list[str] = []
    first = _after_the_last(train > _NEAR * best)
    if first < len(log_snr):
        said.append(
            f"Up to log-SNR {float(log_snr[first]):.1f} the training loss is within {_NEAR - 1:.0%} of the "
            "least that any network can have."
        )
    last = _before_the_first(best > _NOTHING * train)
    if last >= 0:
        said.append(
            f"From log-SNR {float(log_snr[last]):.1f} up the ideal denoiser of the {losses.points:,} "
            f"training pictures has less than {_NOTHING:.0%} of that loss, for it finds each of them again."
        )
    if losses.held is not None:
        last = _before_the_first(losses.held.ideal.mean(0) <= _NEAR * losses.held.mean)
        if last >= 0:
            said.append(
                f"From log-SNR {float(log_snr[last]):.1f} up the network is better than it on held-out "
                "pictures: there it has learnt what is true of more than its training pictures."
            )
    return said


def _after_the_last(flags: Tensor) -> int:
    """The place after the last that is true, 0 where none is."""
    return int(flags.nonzero()[-1]) + 1 if bool(flags.any()) else 0


def _before_the_first(flags: Tensor) -> int:
    """The place before the first that is true, the last place where none is."""
    return int(flags.nonzero()[0]) - 1 if bool(flags.any()) else len(flags) - 1
