"""`sfumato train-clip`: a small CLIP on captioned pictures."""

from __future__ import annotations

import time
from pathlib import Path

import typer


def train_clip(
    data: str = typer.Argument(help="Pictures with captions: a folder, an .npz file, or: emoji."),
    out: Path = typer.Option(..., "--out", "-o", help="A new folder for the pair."),  # noqa: B008
    minutes: float | None = typer.Option(None, help="Minutes of training. [10]"),
    steps: int | None = typer.Option(None, help="Steps, in place of minutes."),
    images: int | None = typer.Option(None, help="Pictures seen, in place of minutes."),
    batch: int = typer.Option(128, help="Pictures in one step, among which each finds its caption."),
    lr: float = typer.Option(1e-3, help="The highest learning rate."),
    noisy: float = typer.Option(0.75, help="Share of pictures shown with noise; 0: clean pictures alone."),
    vocabulary: int = typer.Option(2048, help="The most tokens."),
    flip: bool = typer.Option(False, "--flip", help="Mirror half of the pictures."),
    size: int | None = typer.Option(None, help="Side of the pictures; from the data if not given."),
    channels: int | None = typer.Option(None, help="1 grey, 3 colour, 4 transparency."),
    hold_out: float = typer.Option(0.05, help="Share that is not trained on, to measure recall."),
    cache: Path | None = typer.Option(None, help="Where decoded pictures are kept."),  # noqa: B008
    seed: int = typer.Option(0, help="Decides every draw."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    workers: int = typer.Option(1, help="Threads that read ahead."),
) -> None:
    """Train a small CLIP on captioned pictures, to guide a model or to judge its pictures by captions.

    It says how often held-out pictures find their own caption. An interrupted training keeps what it has.
    """
    from sfumato.training.interrupt import listening

    with listening() as asked:
        from sfumato.conditions.clip import save_clip
        from sfumato.data.prepare import prepare
        from sfumato.errors import RunError
        from sfumato.training.clip import ClipSettings, ClipTraining

        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunError(f"{out}: is there already: choose another --out, or remove it first")
        if minutes is steps is images is None:
            minutes = 10.0
        settings = ClipSettings(
            seed=seed, steps=steps, images=images, minutes=minutes, batch=batch, lr=lr, noisy=noisy,
            vocabulary=vocabulary, flip=flip,
        )  # fmt: skip
        pictures = prepare(data, size=size, multiple=4, channels=channels, hold_out=hold_out, cache=cache)
        training = ClipTraining(pictures, settings, device=device, workers=workers, stop=asked)
        typer.echo(f"{len(training.data)} captioned pictures, {len(training.tokenizer)} tokens")
        told, loss, found = 0.0, 0.0, 0.0
        for step in training.steps():
            rate = max(0.05, 1 / step.step)
            loss, found = loss + rate * (step.loss - loss), found + rate * (step.found - found)
            if time.monotonic() - told > 10:
                told = time.monotonic()
                typer.echo(
                    f"step {step.step}  {step.share:4.0%}  loss {loss:.3f}  found in batch {found:.0%}"
                )
        pair = training.pair()
        save_clip(out, pair)
        typer.echo(f"done: the pair is {out}")
        typer.echo(f"  {pair.recalled}")
        if asked.exit_code:
            raise typer.Exit(asked.exit_code)
