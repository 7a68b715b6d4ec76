"""`sfumato sample`: pictures from a run."""

from __future__ import annotations

from pathlib import Path

import typer


def sample(
    run: Path = typer.Argument(..., metavar="RUN", help="A run folder, or a folder that diffusers wrote."),  # noqa: B008
    number: int | None = typer.Option(
        None,
        "-n",
        "--number",
        help="How many pictures; of each class, where several are named. [16, or 8 of each]",
    ),
    class_: list[str] | None = typer.Option(  # noqa: B008
        None,
        "--class",
        help="A class by name or number; several by commas; all: one row a class; none: no class.",
    ),
    set_: list[str] | None = typer.Option(  # noqa: B008
        None, "--set", help="An attribute, as in age=0.7; several labels as in tags=a|b; more than once."
    ),
    prompt: list[str] | None = typer.Option(  # noqa: B008
        None, "--prompt", help="What to draw, for models with text; of several, a row each."
    ),
    negative: str | None = typer.Option(None, help="What not to draw; works through --guidance."),
    and_: list[str] | None = typer.Option(  # noqa: B008
        None, "--and", help="A further prompt, or NAME=VALUE as in class=cat; :0.5 behind it weighs."
    ),
    not_: list[str] | None = typer.Option(  # noqa: B008
        None, "--not", help="A prompt, or NAME=VALUE, to move away from."
    ),
    conditions: bool = typer.Option(
        False, "--conditions", help="Say what the model can be told, and draw nothing."
    ),
    steps: int | None = typer.Option(None, help="Steps. [the run's own; another sampler's usual]"),
    sampler: str | None = typer.Option(
        None, help="ddim, ddpm, dpmpp-2m, heun, ...: see sfumato samplers. [the run's own]"
    ),
    seed: int = typer.Option(0, help="Picture i has the seed SEED + i."),
    guidance: str | None = typer.Option(
        None, help="Classifier-free guidance; 1 is none; text=5,class=2 for each. [the run's own]"
    ),
    interval: str | None = typer.Option(None, help="Guide only where LOW < sigma/alpha <= HIGH: 0.2,5."),
    rescale: float = typer.Option(0.0, help="Share by which guidance keeps the contrast, as 0.7."),
    threshold: float | None = typer.Option(None, help="Dynamic thresholding at this quantile, as 0.995."),
    classifier_guidance: float = typer.Option(
        0.0, help="Scale of the run's own classifier (sfumato train-classifier), towards --class."
    ),
    autoguide: Path | None = typer.Option(  # noqa: B008
        None, help="A weaker run of the same kind, to move away from."
    ),
    autoguide_scale: float = typer.Option(2.0, help="How far; 1 is not at all."),
    autoguide_weights: str = typer.Option(
        "ema", help="Which of its weights, as for --weights: step:4000 of RUN itself, for example."
    ),
    clip_model: Path | None = typer.Option(  # noqa: B008
        None, help="A CLIP that pulls towards --prompt: of sfumato train-clip, or of transformers."
    ),
    clip_guidance: float = typer.Option(1.0, help="How strongly; 1 is Bayes' rule."),
    cutouts: int = typer.Option(0, help="Crops that the CLIP looks at beside the whole."),
    eta: float | None = typer.Option(None, help="Share of new noise at each step, 0 to 1 (DDIM's eta)."),
    tolerance: float | None = typer.Option(
        None, help="Of adaptive samplers, instead of --steps: the error of a step. [0.05]"
    ),
    clip: bool | None = typer.Option(
        None, "--clip/--no-clip", help="Keep estimates in range. [the run's own]"
    ),
    out: Path | None = typer.Option(  # noqa: B008
        None, help="x.png: one grid; a folder: one PNG a picture. [RUN/samples/...]"
    ),
    film: Path | None = typer.Option(None, help="x.webp, x.gif or x.png: noise becoming pictures."),  # noqa: B008
    film_of: str = typer.Option(
        "x", help="What the film shows: x, the picture with its noise, or x0, the guess."
    ),
    sheet: Path | None = typer.Option(  # noqa: B008
        None, help="x.png: x, and the guesses of x0 and eps, at some steps; of 8 pictures at most."
    ),
    sheet_steps: int = typer.Option(8, help="How many steps the sheet shows."),
    as_dataset: Path | None = typer.Option(  # noqa: B008
        None, help="A folder, or x.npz: write a labelled data set for train, instead."
    ),
    per_class: int | None = typer.Option(None, help="How many of every class, instead of -n."),
    evened: bool = typer.Option(
        False, "--balanced", help="-n of every class, as the run's classifier finds them among more."
    ),
    one_by_one: bool = typer.Option(
        False, "--one-by-one", help="Bit for bit the same whatever -n is; slower."
    ),
    batch: int = typer.Option(64, help="How many pictures at a time."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    weights: str = typer.Option("ema", help="ema, raw, step:12000 of a checkpoint, or ema:0.05 for a width."),
) -> None:
    """Make pictures with a trained model."""
    from sfumato.cli.balanced import check_balanced, choose
    from sfumato.cli.dataset import balanced, check_place, write_dataset
    from sfumato.cli.drawing import Film, arrange_all, check_target, draw, place
    from sfumato.cli.wishes import also_of, interval_of, possible, scale_of, settings_of
    from sfumato.errors import SettingsError
    from sfumato.guides.classifier import names_of
    from sfumato.inside.sheet import check_sheet, write_sheet
    from sfumato.runs import load

    if film is None and film_of != "x":
        raise SettingsError(f"--film-of {film_of} is of --film: give that too, or leave it out")
    reel = None if film is None else Film(film, film_of)
    check_sheet(sheet, sheet_steps)
    if out is not None:
        check_target(out)
    if as_dataset is not None:
        check_place(as_dataset, (out, film, sheet))
    opened = load(run, device, weights)
    if conditions:
        for line in possible(opened):
            typer.echo(line)
        return
    asked = class_ or []
    names = opened.classes or (names_of(opened.path) if classifier_guidance else ())
    if evened:
        classes, prompts = check_balanced(opened, asked, prompt or [], (per_class,))
        columns = 0
    else:
        classes, prompts, columns = arrange_all(names, number, asked, prompt or [])
    if per_class is not None:
        classes = balanced(names, per_class, (number, asked, prompt))
    recipe = opened.recipe(
        len(classes), classes=classes, prompt=prompts, negative=negative, set=settings_of(set_ or []),
        also=also_of(and_ or [], not_ or []),
        steps=steps, sampler=sampler, eta=eta, tolerance=tolerance, seed=seed, guidance=scale_of(guidance),
        interval=interval_of(interval), rescale=rescale, threshold=threshold, clip=clip, batch=batch,
        classifier_guidance=classifier_guidance, autoguide=autoguide, autoguide_scale=autoguide_scale,
        autoguide_weights=autoguide_weights,
        clip_model=clip_model, clip_guidance=clip_guidance, cutouts=cutouts,
        one_by_one=one_by_one,
    )  # fmt: skip
    chosen = choose(opened, recipe, number) if evened else None
    if chosen is not None:
        recipe, columns = chosen.recipe, chosen.each
    if as_dataset is not None:
        typer.echo(str(write_dataset(opened, recipe, as_dataset, chosen)))
        return
    target = place(opened, recipe, ["balanced"] if evened else asked) if out is None else out
    for path in draw(opened, recipe, target, columns, reel):
        typer.echo(str(path))
    if sheet is not None:
        typer.echo(str(write_sheet(opened, recipe, sheet, sheet_steps)))
