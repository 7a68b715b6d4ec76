"""`sfumato train-classifier`: a classifier of noisy pictures, to guide a run by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sfumato.errors import SettingsError

if TYPE_CHECKING:  # nothing heavy is imported until the command runs
    import torch

    from sfumato.card import Card, ImageSettings
    from sfumato.data.dataset import DataSet
    from sfumato.folders.run import Stored
    from sfumato.training.classifier import Accuracy, ClassifierSettings, Schooling
    from sfumato.training.levels import Where
    from sfumato.training.step import TrainStep


def train_classifier(
    run: Path = typer.Argument(..., metavar="RUN", help="The run that it will guide."),  # noqa: B008
    data: str = typer.Argument(
        ..., metavar="DATA", help="Pictures with classes: a folder, .npz, or: digits."
    ),
    minutes: float | None = typer.Option(None, help="Minutes of training. [5; on a GPU 20]"),
    steps: int | None = typer.Option(None, help="Steps, in place of minutes."),
    images: int | None = typer.Option(None, help="Images seen, in place of minutes."),
    model: str = typer.Option("tiny", help="tiny, small, base or large."),
    batch: int = typer.Option(64, help="Pictures in one step."),
    lr: float | None = typer.Option(None, help="The highest learning rate. [half of a run's of this size]"),
    weight_decay: float = typer.Option(0.05, help="Of matrices and kernels."),
    dropout: float = typer.Option(0.1, help="Share of activations dropped."),
    smoothing: float = typer.Option(0.0, help="Share of a target that is spread over all classes."),
    flip: bool = typer.Option(False, "--flip", help="Mirror half of the pictures."),
    balance: float = typer.Option(1.0, help="1: classes as they are; 0: each equally often."),
    hold_out: float = typer.Option(0.05, help="Share that is not trained on."),
    seed: int = typer.Option(0, help="Decides every draw."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    workers: int = typer.Option(1, help="Threads that read ahead."),
    cache: Path | None = typer.Option(None, help="Where decoded pictures are kept."),  # noqa: B008
) -> None:
    """Train a classifier of noisy pictures on a run's schedule, for sfumato sample --classifier-guidance.

    It is kept in RUN/classifier and replaces the one that was there. The run may have classes or none.
    """
    from sfumato.cli.shown import Shown
    from sfumato.data.augment import Augment
    from sfumato.data.batches import Batches
    from sfumato.data.bundled import open_source
    from sfumato.data.prepare import prepare
    from sfumato.folders.run import open_folder
    from sfumato.networks import SIZES
    from sfumato.training.classifier import ClassifierSettings
    from sfumato.training.device import choose_device
    from sfumato.training.interrupt import listening

    where = choose_device(device)
    if model not in SIZES:
        raise SettingsError(f"--model is one of {', '.join(SIZES)}, not {model!r}")
    if minutes is None and steps is None and images is None:
        minutes = 5.0 if where.type == "cpu" else 20.0
    settings = ClassifierSettings(
        seed=seed, steps=steps, images=images, minutes=minutes, batch=batch, weight_decay=weight_decay,
        lr=SIZES[model].learning_rate / 2 if lr is None else lr, smoothing=smoothing,
    )  # fmt: skip
    with listening() as asked:
        stored = open_folder(run)
        image, show, source = stored.card.image, Shown(run, True), open_source(data)
        fitting, told = stored.card.fitting(source), show.reading(asked)
        pictures = prepare(source, **fitting, hold_out=hold_out, cache=cache, progress=told)
        _check(run, data, pictures.label_names, stored.card)
        school = _school(run, stored, pictures.label_names, settings, model, dropout, where)
        stream, step = Batches(pictures, seed, Augment(flip=flip), balance), None
        with show.progress():
            for step in school.steps(stream, stop=asked, workers=workers):
                show.step(step)
        if asked.exit_code or step is None:
            typer.echo("stopped by a signal: no classifier was kept")
            raise typer.Exit(asked.exit_code)
        found = _keep(run, image, pictures, school, step)
    _tell(found)
    typer.echo(f"done: the classifier is in {run / 'classifier'}, guide by it with")
    typer.echo(f"  sfumato sample {run} --class {pictures.label_names[0]} --classifier-guidance 2")


def _school(
    run: Path, stored: Stored, names: tuple[str, ...], settings: ClassifierSettings, model: str,
    dropout: float, where: torch.device,
) -> Schooling:  # fmt: skip
    """The classifier to train, as wide and deep as the way down of the U-Net of that size."""
    from sfumato.networks import Classifier, ClassifierConfig, preset
    from sfumato.noise import seeded
    from sfumato.training.classifier import Schooling

    channels, *size = stored.card.image.shape
    trunk = preset(model, channels=channels, image_size=(size[0], size[1]), dropout=dropout)
    config = ClassifierConfig.half(trunk, in_channels=channels, outputs=len(names))
    with seeded(settings.seed, "classifier"):
        network = Classifier(config)
    return Schooling(network.to(where), stored.model.schedule, settings, _levels(run))


def _keep(
    run: Path, image: ImageSettings, pictures: DataSet, school: Schooling, step: TrainStep
) -> Accuracy | None:
    """Judges the held-out pictures, and writes the classifier with what came out."""
    from sfumato.card import DataSettings, TrainingSettings
    from sfumato.folders.classifier import ClassifierCard, save_classifier
    from sfumato.training.classifier import Accuracy

    found = Accuracy((), (), 0)
    if len(pictures.held):
        found = school.accuracy(pictures.held_out(1024))
    card = ClassifierCard.of(
        school.network.config, pictures.label_names, image,
        data=DataSettings(
            fingerprint=pictures.fingerprint, images=len(pictures), held_out=len(pictures.held)
        ),
        training=TrainingSettings(
            images_seen=step.images, steps=step.step, seconds=step.seconds, seed=school.settings.seed
        ),
        log_snr=found.log_snr, right=found.right,
    )  # fmt: skip
    save_classifier(run, school.network, card)
    return found if found.right else None


def _check(run: Path, data: str, names: tuple[str, ...], card: Card) -> None:
    """Raises SettingsError where there is nothing to tell apart, or something else than in the run."""
    if len(names) < 2:
        raise SettingsError(
            f"{data}: has no classes to tell apart: put its pictures into one sub-folder for each class, or "
            "name the classes in a table"
        )
    if card.classes is not None and card.classes != names:
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise SettingsError(
            f"{data}: its classes ({listed}) are not those of {run}: give the data that it was trained on"
        )
    if (card.image.low, card.image.high) != (-1.0, 1.0):
        raise SettingsError(
            f"{run}: its pictures go from {card.image.low:g} to {card.image.high:g}, and classifiers learn "
            "from -1 to 1: train the run with sfumato train"
        )


def _levels(run: Path) -> Where:
    """The levels that the run was trained at, as its settings say; evenly where there are none."""
    from sfumato.errors import ModelFileError
    from sfumato.files import read_json
    from sfumato.training.named import where_named
    from sfumato.training.run import SETTINGS

    try:
        value = read_json(run / SETTINGS)
    except ModelFileError:
        return where_named("stratified")
    train = value.get("train") if isinstance(value, dict) else None
    levels = train.get("levels") if isinstance(train, dict) else None
    return where_named(str(levels))


def _tell(found: Accuracy | None) -> None:
    if found is None:
        typer.echo("no picture is held out, so its accuracy is not known")
        return
    typer.echo(f"judged rightly, of {found.pictures} held-out pictures, from clean to noisy")
    for log_snr, right in zip(found.log_snr, found.right, strict=True):
        typer.echo(f"  log-SNR {log_snr:6.1f}  {right:6.1%}")
