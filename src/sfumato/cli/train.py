"""`sfumato train`: from a folder of pictures to a run folder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

_LENGTH, _MODEL, _LOSS, _STEP = "Length", "Model", "Loss", "Optimisation"
_DATA, _WATCH, _WHERE, _TOLD = "Data", "Watching", "Where and how", "What it is told"


def train(
    data: str = typer.Argument(metavar="DATA", help="A folder of pictures, an .npz file, or: digits, emoji."),
    out: Path = typer.Option(  # noqa: B008 (how typer is told)
        ..., "--out", "-o", help="The run's folder; a run that is there goes on."
    ),
    minutes: float | None = typer.Option(None, help="Minutes of training.", rich_help_panel=_LENGTH),
    steps: int | None = typer.Option(None, help="Steps, in place of minutes.", rich_help_panel=_LENGTH),
    images: int | None = typer.Option(
        None, help="Images seen, in place of minutes.", rich_help_panel=_LENGTH
    ),
    resume: str = typer.Option("auto", help="auto: go on with a run that is there; never: refuse one."),
    restart: bool = typer.Option(False, help="Begin anew; only in an empty folder."),
    model: str | None = typer.Option(
        None, help="A U-Net: tiny, small, base or large; or dit-tiny ... dit-large.", rich_help_panel=_MODEL
    ),
    schedule: str = typer.Option(
        "cosine",
        help="A table: cosine, linear, scaled-linear, constant, or a .json file of betas or alpha_bars. A "
        "curve: flow, cosine-continuous, plain-cosine, sigmoid, linear-alpha-bar, ve, log-linear, learned.",
        rich_help_panel=_MODEL,
    ),
    shift: float | None = typer.Option(
        None,
        help="How many times noisier: 4 for 256 pixels. [cosine: the side over 64, at least 1]",
        rich_help_panel=_MODEL,
    ),
    zero_snr: bool = typer.Option(
        False, "--zero-snr", help="Stretch a table until no signal is left.", rich_help_panel=_MODEL
    ),
    prediction: str | None = typer.Option(
        None, help="v, epsilon, x0, flow, score, mean or edm. [v; ve: edm]", rich_help_panel=_MODEL
    ),
    learned_variance: bool = typer.Option(
        False, "--learned-variance", help="Also learn the noise of each step.", rich_help_panel=_MODEL
    ),
    self_conditioning: bool = typer.Option(
        False, "--self-conditioning", help="Show the model its last estimate.", rich_help_panel=_MODEL
    ),
    dropout: float | None = typer.Option(None, help="Share of activations dropped.", rich_help_panel=_MODEL),
    skips: bool = typer.Option(
        True, "--skips/--no-skips", help="A U-Net's connections across.", rich_help_panel=_MODEL
    ),
    checkpointing: bool = typer.Option(
        False, "--checkpointing", help="Less memory, a third more time.", rich_help_panel=_MODEL
    ),
    weight: str | None = typer.Option(
        None,
        help="simple, x0, v, flow, min-snr, p2, sigmoid, edm, inverse-variance, ddpm or bound.",
        rich_help_panel=_LOSS,
    ),
    gamma: float | None = typer.Option(None, help="Of min-snr. [5]", rich_help_panel=_LOSS),
    bias: float | None = typer.Option(None, help="Of sigmoid: a log-SNR. [0]", rich_help_panel=_LOSS),
    huber: float = typer.Option(
        0.0, help="Pseudo-Huber loss with this c in place of squares; 0: squares.", rich_help_panel=_LOSS
    ),
    adversarial: float = typer.Option(
        0.0, help="Share of a discriminator's judgement of patches.", rich_help_panel=_LOSS
    ),
    caption_loss: float | None = typer.Option(
        None,
        help="Share of a text encoder's own lesson: the picture in small from its caption alone. [1]",
        rich_help_panel=_LOSS,
    ),
    bound: float | None = typer.Option(
        None, help="Share of the variational bound, for --learned-variance.", rich_help_panel=_LOSS
    ),
    levels: str | None = typer.Option(
        None,
        help="stratified, uniform, logit-normal, log-normal-sigma, importance or fitted. [the first]",
        rich_help_panel=_LOSS,
    ),
    text: str = typer.Option(
        "auto",
        help="auto, none, own (an encoder trained with the model), or the folder of a pretrained one.",
        rich_help_panel=_TOLD,
    ),
    pooled: bool = typer.Option(
        False, "--pooled", help="One state a caption from a pretrained encoder.", rich_help_panel=_TOLD
    ),
    attribute: list[str] | None = typer.Option(  # noqa: B008
        None,
        "--attribute",
        help="A column to tell, NAME or NAME:number, :choice, :labels; more than once.",
        rich_help_panel=_TOLD,
    ),
    classes: bool = typer.Option(
        True, "--classes/--no-classes", help="Tell the classes, where there are any.", rich_help_panel=_TOLD
    ),
    conditioning: str = typer.Option(
        "add",
        help="How it enters each block: add, or scale_shift (adaptive group norm).",
        rich_help_panel=_TOLD,
    ),
    class_input: str = typer.Option(
        "embedding", help="A class enters by embedding, or concat: as maps.", rich_help_panel=_TOLD
    ),
    picture: str = typer.Option(
        "",
        help="Show it a picture of yours beside the noise: the column that names one for each.",
        rich_help_panel=_TOLD,
    ),
    task: str = typer.Option(
        "",
        help="Show it what to finish: upscale:4, inpaint, colourise, edges, deblur; several by commas.",
        rich_help_panel=_TOLD,
    ),
    drop: float | None = typer.Option(
        None, help="How often what it is told is hidden, for guidance. [0.1]", rich_help_panel=_TOLD
    ),
    batch: int | None = typer.Option(None, help="Pictures in one step.", rich_help_panel=_STEP),
    accumulate: int = typer.Option(1, help="Parts that a batch is computed in.", rich_help_panel=_STEP),
    lr: float | None = typer.Option(None, help="The highest learning rate.", rich_help_panel=_STEP),
    warmup: int | None = typer.Option(
        None,
        help="Steps until the highest learning rate. [a twentieth of the run, at most 100]",
        rich_help_panel=_STEP,
    ),
    floor: float = typer.Option(
        0.01, help="The last learning rate, as a share of the highest.", rich_help_panel=_STEP
    ),
    optimiser: str = typer.Option("adamw", help="adamw or sgld.", rich_help_panel=_STEP),
    temperature: float | None = typer.Option(None, help="Of sgld. [1e-7]", rich_help_panel=_STEP),
    weight_decay: float = typer.Option(0.01, help="Of matrices and kernels.", rich_help_panel=_STEP),
    clip: float = typer.Option(1.0, help="Largest norm of the gradient; 0 for any.", rich_help_panel=_STEP),
    ema: float | None = typer.Option(
        None, help="Decay of the average of the weights.", rich_help_panel=_STEP
    ),
    averages: int = typer.Option(
        8, help="Snapshots kept, from which any other average is rebuilt.", rich_help_panel=_STEP
    ),
    precision: str = typer.Option("auto", help="auto, fp32 or bf16.", rich_help_panel=_STEP),
    seed: int = typer.Option(0, help="Decides every draw of the run.", rich_help_panel=_STEP),
    size: str | None = typer.Option(
        None, help="Side, or WIDTHxHEIGHT; from the data if not given.", rich_help_panel=_DATA
    ),
    channels: int | None = typer.Option(
        None, help="1 grey, 3 colour, 4 transparency.", rich_help_panel=_DATA
    ),
    resize: str = typer.Option(
        "crop", help="How pictures of other shapes are fitted.", rich_help_panel=_DATA
    ),
    hold_out: float = typer.Option(0.05, help="Share that is not trained on.", rich_help_panel=_DATA),
    flip: bool = typer.Option(False, "--flip", help="Mirror half of the pictures.", rich_help_panel=_DATA),
    crop: float = typer.Option(
        0.0, help="Room for random crops, as a share of the side.", rich_help_panel=_DATA
    ),
    brightness: float = typer.Option(0.0, help="Of colour jitter.", rich_help_panel=_DATA),
    contrast: float = typer.Option(0.0, help="Of colour jitter.", rich_help_panel=_DATA),
    saturation: float = typer.Option(0.0, help="Of colour jitter.", rich_help_panel=_DATA),
    balance: float = typer.Option(
        1.0, help="1: classes as they are; 0: each equally often.", rich_help_panel=_DATA
    ),
    cache: Path | None = typer.Option(  # noqa: B008
        None, help="Where decoded pictures are kept.", rich_help_panel=_DATA
    ),
    validate: int | None = typer.Option(
        None, help="Steps between two looks at held-out pictures; 0: never.", rich_help_panel=_WATCH
    ),
    patience: int | None = typer.Option(
        None, help="Looks without a better one until it stops early; 0: never.", rich_help_panel=_WATCH
    ),
    metrics: list[str] | None = typer.Option(  # noqa: B008
        None,
        "--metrics",
        help="Also look at samples, by kid, fid, recall ...; several by commas, or more than once.",
        rich_help_panel=_WATCH,
    ),
    metrics_every: int | None = typer.Option(
        None, help="Images between two such looks; else about a tenth of the time.", rich_help_panel=_WATCH
    ),
    metric_samples: int = typer.Option(1000, help="Samples of a look.", rich_help_panel=_WATCH),
    features: str = typer.Option(
        "lite0", help="Through whose eyes: lite0, inception, clip or dinov2.", rich_help_panel=_WATCH
    ),
    features_weights: Path | None = typer.Option(  # noqa: B008
        None, help="A file or folder with the extractor's weights.", rich_help_panel=_WATCH
    ),
    best_by: str = typer.Option(
        "loss", help="What the best look is the best by: loss, or one of --metrics.", rich_help_panel=_WATCH
    ),
    sample_share: float = typer.Option(
        0.03, help="Share of the time for sample grids; 0: only at the end.", rich_help_panel=_WATCH
    ),
    tensorboard: bool = typer.Option(False, "--tensorboard", help="Also log there.", rich_help_panel=_WATCH),
    wandb: str | None = typer.Option(None, help="Also log to this W&B project.", rich_help_panel=_WATCH),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps.", rich_help_panel=_WHERE),
    workers: int = typer.Option(1, help="Threads that read ahead.", rich_help_panel=_WHERE),
    save_minutes: float = typer.Option(3.0, help="Minutes between checkpoints.", rich_help_panel=_WHERE),
    save_every: int | None = typer.Option(None, help="Steps, in place of minutes.", rich_help_panel=_WHERE),
    keep: int = typer.Option(2, help="How many checkpoints are kept.", rich_help_panel=_WHERE),
    timeout: float = typer.Option(
        120.0, help="Seconds that one process waits for another.", rich_help_panel=_WHERE
    ),
) -> None:
    """Trains a diffusion model on your pictures, or goes on with a run that was interrupted.

    Ends with 0 when the run is complete, 143 after SIGTERM, 130 after Ctrl-C and 138 after SIGUSR1: the state
    is saved, and the same command goes on from there.
    """
    from sfumato.training.interrupt import listening

    with listening() as asked, ExitStack() as stack:
        from sfumato.cli.shown import Shown, trackers
        from sfumato.data.prepare import prepare
        from sfumato.errors import SettingsError
        from sfumato.networks import MODELS
        from sfumato.training.crew import joined
        from sfumato.training.device import choose_device, choose_precision
        from sfumato.training.recipes import pixels
        from sfumato.training.run import train_run
        from sfumato.training.settings import Habits

        if resume not in ("auto", "never"):
            raise SettingsError(f"--resume is auto or never, not {resume!r}")
        if resume == "never" and (out / "checkpoints").exists():
            raise SettingsError(
                f"{out}: holds a run already, and --resume never was given: choose another --out"
            )
        habits = Habits(device, workers, save_every, save_minutes, keep)
        where = choose_device(device)
        if model is not None and model not in MODELS:
            raise SettingsError(f"--model is one of {', '.join(MODELS)}, not {model!r}")
        said = {
            "steps": steps, "images": images, "minutes": minutes, "batch": batch, "lr": lr, "ema": ema,
            "weight": weight, "validate": validate, "patience": patience, "warmup": warmup,
            "bound": bound, "metrics_every": metrics_every,
        }  # fmt: skip
        fixed = {
            "seed": seed, "accumulate": accumulate, "floor": floor, "optimiser": optimiser,
            "temperature": temperature, "weight_decay": weight_decay, "clip": clip, "averages": averages,
            "drop": drop, "gamma": gamma, "bias": bias, "huber": huber, "levels": levels,
            "precision": choose_precision(precision, where), "best_by": best_by,
        }  # fmt: skip
        crew = stack.enter_context(joined(device, timeout))
        show = Shown(out, crew.leads)
        with show.naming():
            pictures = prepare(
                data, size=read_size(size), multiple=4, channels=channels, resize=read_resize(resize),
                room=crop, hold_out=hold_out, cache=cache, progress=show.reading(asked), aligned=picture,
            )  # fmt: skip
        settings = pixels(
            pictures, device=where.type, model=model, dropout=dropout, skips=skips,
            checkpointing=checkpointing,
            train={k: v for k, v in {**said, **fixed}.items() if v is not None},
            schedule=schedule, shift=shift, zero_snr=zero_snr, prediction=prediction,
            learned_variance=learned_variance, self_conditioning=self_conditioning, adversarial=adversarial,
            flip=flip, brightness=brightness, contrast=contrast, saturation=saturation, balance=balance,
            text=_text(text, out), pooled=pooled, attributes=attribute or [], classes=classes,
            picture=picture, task=task, conditioning=conditioning, class_input=class_input,
            extractor=features,
            metrics=tuple(name.strip() for one in metrics or () for name in one.split(",")),
            metric_samples=metric_samples, **({} if caption_loss is None else {"caption_loss": caption_loss}),
        )  # fmt: skip
        show.begin(pictures, settings)
        ran = train_run(
            pictures, settings, out, habits=habits, crew=crew, stop=asked, restart=restart,
            sample_share=sample_share, trackers=trackers(out, tensorboard, wandb, settings),
            judging=_judging(settings, features_weights, show.judging(asked)),
        )  # fmt: skip
        with show.progress():
            for step in ran:
                show.step(step)
        show.end(asked.exit_code)
        if asked.exit_code:
            raise typer.Exit(asked.exit_code)


def _judging(settings: Any, weights: Path | None, progress: Any) -> Any:
    """What judges the run's samples, where it is asked for."""
    from sfumato.errors import SettingsError
    from sfumato.evaluation.during import judging

    if weights is not None and not settings.metrics:
        raise SettingsError("--features-weights is of --metrics: add that, or leave it out")
    return judging(weights, progress=progress) if settings.metrics else None


def _text(said: str, out: Path) -> str:
    """--text auto of a run that is there is what that was begun with: none, before there was a choice."""
    from sfumato.files import read_json
    from sfumato.training.run import SETTINGS

    if said != "auto" or not (out / SETTINGS).exists():
        return said
    before = read_json(out / SETTINGS)
    held = before.get("text", "none") if isinstance(before, dict) else "none"
    return held if isinstance(held, str) else "none"


def read_size(text: str | None) -> int | tuple[int, int] | None:
    """A side, or WIDTHxHEIGHT as (height, width)."""
    from sfumato.errors import SettingsError

    if text is None:
        return None
    parts = text.lower().split("x")
    if not all(p.isascii() and p.isdigit() and len(p) < 6 for p in parts) or len(parts) > 2:
        raise SettingsError(f"--size is a side such as 64 or WIDTHxHEIGHT such as 96x64, not {text!r}")
    return int(parts[0]) if len(parts) == 1 else (int(parts[1]), int(parts[0]))


def read_resize(text: str) -> Any:
    """How pictures of other shapes are fitted, by name."""
    from sfumato.cli.wishes import resize_of

    return resize_of(text)
