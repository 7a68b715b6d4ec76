"""`sfumato train-classifier`, and pictures guided by what it wrote and by the other guidances of `sample`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from corpora import small
from corpora import told as corpus
from sfumato import cli
from sfumato.assembled import build
from sfumato.cli.edits.changes import both_of
from sfumato.cli.edits.was import Was
from sfumato.data.decode import decode
from sfumato.editing.job import bench
from sfumato.errors import RunError, SettingsError
from sfumato.evaluation.pictures import choose
from sfumato.files.pictures import grid, to_bytes
from sfumato.folders.classifier import open_classifier
from sfumato.guidance.bound import Clipped, Thresholded
from sfumato.guidance.classifier import logits
from sfumato.guidance.mix import Mix
from sfumato.guidance.rescale import Rescaled
from sfumato.guidance.steer import Steered
from sfumato.level import Level
from sfumato.noise import Noise
from sfumato.predictions import V
from sfumato.provenance import read_origin
from sfumato.records.conditions import PictureSettings
from sfumato.runs import load, save
from sfumato.tables import Table

pytestmark = pytest.mark.slow

CLASSES = small.CLASSES


def says(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str], str]:
    """Exit code, lines, and what went to the error stream."""
    code = cli.run([str(word) for word in words])
    out = capsys.readouterr()
    return code, out.out.splitlines(), out.err


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures of 8 x 8, one folder a class, each class bright in its own third."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for k, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for i in range(12):
            pixels = rng.integers(0, 60, (8, 8)).astype(np.uint8)
            pixels[3 * k : 3 * k + 2] += 150
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """Untrained runs with classes, `pets`, and without, `plain`, each with a classifier; `weak`, another."""
    folder = tmp_path_factory.mktemp("runs")
    for name, classes, seed in (("pets", CLASSES, 1), ("plain", None, 1), ("weak", CLASSES, 2)):
        card = small.card(classes=classes, schedule=Table.cosine(), prediction=V())
        save(folder / name, build(card, seed), card)
    for name in ("pets", "plain"):
        words = ["train-classifier", folder / name, photos, "--steps", 30, "--batch", 12, "--hold-out", 0.2]
        assert cli.run([str(word) for word in [*words, "--device", "cpu"]]) == 0
    return folder


def test_what_is_trained_is_kept_and_told(
    runs: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "weak", run)
    words = (
        "train-classifier",
        run,
        photos,
        "--steps",
        30,
        "--batch",
        12,
        "--hold-out",
        0.2,
        "--device",
        "cpu",
    )
    code, lines, err = says(capsys, *words)
    assert (code, err) == (0, "")
    assert lines[-1] == f"  sfumato sample {run} --class cat --classifier-guidance 2"
    told = [line for line in lines if "log-SNR" in line]
    found = open_classifier(run)
    assert len(told) == len(found.card.right) == 8
    assert found.card.classes == CLASSES
    assert found.card.image == load(run, "cpu").card.image
    assert found.card.training.images_seen == 360
    first = found.sha256
    assert says(capsys, *words)[0] == 0  # again: another time is told of it, the same weights
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            found.network.state_dict().values(),
            open_classifier(run).network.state_dict().values(),
            strict=True,
        )
    )
    assert says(capsys, *words, "--seed", 1)[0] == 0
    assert open_classifier(run).sha256 != first
    code, lines, _ = says(capsys, *words, "--hold-out", 0)
    assert code == 0
    assert any("no picture is held out" in line for line in lines)


@pytest.mark.parametrize("name", ["pets", "plain"])
def test_the_classifier_guides_a_run_with_classes_and_one_without(
    name: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.png"
    words = ("sample", runs / name, "--class", "cat,ox", "-n", 2, "--steps", 4, "--classifier-guidance", 3)
    assert says(capsys, *words, "--device", "cpu", "--out", out) == (0, [str(out)], "")
    run = load(runs / name, "cpu")
    how: dict[str, Any] = {"classes": ["cat", "cat", "ox", "ox"], "steps": 4}
    pictures = run.sample(**how, classifier_guidance=3.0)
    assert np.array_equal(decode(out).array[:, :, 0], grid([to_bytes(p) for p in pictures], 2))
    recipe = run.recipe(**how, classifier_guidance=3.0)
    denoise = run.denoiser(recipe)
    assert isinstance(denoise, Clipped)
    assert isinstance(denoise.denoise, Steered)
    level = Level.of(0.8, 0.6)
    x = Noise((0, 1, 2, 3)).normal((1, 8, 8), "x")
    inner = denoise.denoise.denoise(x, level)
    judge = open_classifier(run.path).network
    leaf = x.clone().requires_grad_()
    log = logits(judge, leaf, level).log_softmax(1)[torch.arange(4), torch.tensor([0, 0, 2, 2])]
    (slope,) = torch.autograd.grad(log.sum(), leaf)
    wanted = inner.x0 + 3.0 * 0.36 / 0.8 * slope
    assert torch.allclose(denoise.denoise(x, level).x0, wanted, atol=1e-5)


KINDS: dict[str, tuple[object, ...]] = {
    "classifier": ("--classifier-guidance", 2.5),
    "classifier, one": ("--classifier-guidance", 2.5, "--out", "x"),
    "interval": ("--guidance", 3, "--interval", "0.2,5"),
    "rescale": ("--guidance", 3, "--rescale", 0.7),
    "threshold": ("--guidance", 3, "--threshold", 0.9),
    "autoguide": ("--autoguide", "{runs}/weak", "--autoguide-scale", 1.5),
    "all": (
        "--classifier-guidance", 2, "--guidance", 3, "--interval", "0.2,5", "--rescale", 0.7,
        "--threshold", 0.9, "--autoguide", "{runs}/weak",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_replay_gives_the_identical_picture(
    kind: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(word).format(runs=runs) for word in KINDS[kind]]
    if "--out" in words:
        words[words.index("--out") + 1] = str(tmp_path / "x")
    else:
        words += ["--out", str(tmp_path / "x.png")]
    said = ("sample", runs / "pets", "--class", "dog,ox", "-n", 2, "--steps", 4, "--device", "cpu", *words)
    code, lines, err = says(capsys, *said)
    assert (code, err) == (0, "")
    assert says(capsys, "replay", lines[-1], "--device", "cpu")[:2] == (0, [f"{lines[-1]}: identical"])
    plain = tmp_path / "plain.png"
    says(capsys, *said[:8], "--device", "cpu", "--guidance", 1, "--out", plain)
    assert kind == "classifier, one" or not np.array_equal(decode(plain).array, decode(Path(lines[-1])).array)


def test_replay_says_what_has_changed(
    runs: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another classifier, and another weaker run, are named."""
    for name in ("pets", "weak"):
        shutil.copytree(runs / name, tmp_path / name)
    out = tmp_path / "x.png"
    words = (
        "--steps",
        4,
        "--class",
        "dog",
        "-n",
        2,
        "--classifier-guidance",
        9,
        "--autoguide",
        tmp_path / "weak",
    )
    assert says(capsys, "sample", tmp_path / "pets", *words, "--device", "cpu", "--out", out)[0] == 0
    train = ("train-classifier", tmp_path / "pets", photos, "--steps", 60, "--batch", 12, "--device", "cpu")
    assert says(capsys, *train)[0] == 0
    code, lines, _ = says(capsys, "replay", out, "--device", "cpu")
    assert code == 1
    assert any("classifier" in line and "then" in line for line in lines)
    shutil.rmtree(tmp_path / "weak")
    code, _, err = says(capsys, "replay", out, "--device", "cpu")
    assert code == 1
    assert "weak" in err


def test_a_run_says_what_its_classifier_knows(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, _ = says(capsys, "sample", runs / "plain", "--conditions")
    assert code == 0
    assert any("--classifier-guidance" in line and "cat, dog, ox" in line for line in lines)
    with pytest.raises(SettingsError, match="ask for classes"):
        load(runs / "plain", "cpu").recipe(2, classifier_guidance=2.0)


def test_pictures_that_the_run_was_shown_are_no_class(photos: Path, tmp_path: Path) -> None:
    """Outlines in a folder of their own, beside the folders of the classes; other commands leave them out
    likewise."""
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "outlines").mkdir()
    lines = ["file_name,outline"]
    for path in sorted(photos.rglob("*.png")):
        shutil.copy(path, tmp_path / "photos" / "outlines" / f"{path.parent.name}-{path.name}")
        lines.append(f"{path.parent.name}/{path.name},outlines/{path.parent.name}-{path.name}")
    (tmp_path / "photos" / "metadata.csv").write_text("\n".join(lines))
    said = corpus.card(2).but(picture=PictureSettings(channels=2, column="outline"))
    save(tmp_path / "run", corpus.model(said), said, text=corpus.tokenizer())
    words = ["train-classifier", tmp_path / "run", tmp_path / "photos", "--steps", 2, "--device", "cpu"]
    assert cli.run([str(word) for word in words]) == 0
    assert open_classifier(tmp_path / "run").card.classes == CLASSES
    seen = choose(load(tmp_path / "run", "cpu"), tmp_path / "photos", n=100)
    assert len(seen.x0) == 36


@pytest.mark.parametrize("name", ["pets", "plain"])
def test_a_change_goes_back_as_what_the_picture_was(name: str, runs: Path) -> None:
    """Pulled to its own class, where that is said; never to the class that it shall have."""
    run = load(runs / name, "cpu")
    b = bench(run, run.recipe(2, classes="ox", classifier_guidance=3.0, guidance=1, sampler="ddim", steps=3))
    unsaid, cat = Was().recipe(b), Was("cat").recipe(b)
    assert b.recipe.judged is not None
    assert unsaid.judged is None
    assert cat.judged is not None
    assert (cat.judged.scale, cat.judged.names) == (3.0, ("cat", "cat"))
    for was, names in ((unsaid, (None, None)), (cat, ("cat", "cat"))):
        pairs = both_of(was, b.recipe)
        assert pairs.judged is not None
        assert pairs.judged.names == (*names, "ox", "ox")
        assert len(pairs.seeds) == 4


def test_a_scale_of_nothing_guides_nothing(runs: Path) -> None:
    run = load(runs / "pets", "cpu")
    how: dict[str, Any] = {"classes": "dog", "steps": 3, "guidance": 3.0}
    plain = run.sample(2, **how)
    assert torch.equal(run.sample(2, **how, classifier_guidance=0.0), plain)
    assert torch.equal(run.sample(2, **how, rescale=0.0), plain)
    assert torch.equal(run.sample(2, **how, interval=(0.0, float("inf"))), plain)
    assert torch.equal(run.sample(2, **how, autoguide=runs / "weak", autoguide_scale=1.0), plain)


def test_a_guide_that_changed_under_a_recipe_is_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "pets", tmp_path / "pets")
    shutil.copytree(runs / "weak", tmp_path / "weak")
    run = load(tmp_path / "pets", "cpu")
    judged = run.recipe(1, classes="cat", steps=2, classifier_guidance=2.0)
    away = run.recipe(1, classes="cat", steps=2, autoguide=tmp_path / "weak")
    shutil.copytree(runs / "plain" / "classifier", tmp_path / "pets" / "classifier", dirs_exist_ok=True)
    for part in (tmp_path / "weak").glob("*/*.safetensors"):
        shutil.copy(runs / "pets" / part.relative_to(tmp_path / "weak"), part)
    with pytest.raises(RunError, match="its classifier has changed"):
        run.make(judged)
    with pytest.raises(RunError, match="its model has changed"):
        run.make(away)


def test_the_parts_are_put_together_in_order(runs: Path) -> None:
    run = load(runs / "pets", "cpu")
    recipe = run.recipe(
        2, classes="dog", guidance=3.0, classifier_guidance=2.0, rescale=0.5, threshold=0.9,
        interval=(0.2, 5.0), autoguide=runs / "weak", autoguide_scale=2.0,
    )  # fmt: skip
    outer = run.denoiser(recipe)
    assert isinstance(outer, Thresholded)
    assert isinstance(outer.denoise, Steered)
    assert isinstance(outer.denoise.denoise, Rescaled)
    mixture = outer.denoise.denoise.mixture
    assert isinstance(mixture, Mix)
    x = Noise((0, 1)).normal((1, 8, 8), "x")
    inside, outside = Level.of(0.8, 0.6), Level.of(0.1, 0.995)
    told = run.denoiser(run.recipe(2, classes="dog", guidance=1.0, clip=False))
    assert torch.equal(mixture(x, outside).x0, told(x, outside).x0)
    weak = load(runs / "weak", "cpu")
    other = weak.denoiser(weak.recipe(2, classes="dog", guidance=1.0, clip=False))(x, inside).x0
    free = run.denoiser(run.recipe(2, classes="dog", guidance=3.0, clip=False))(x, inside).x0
    wanted = free + told(x, inside).x0 - other
    assert torch.allclose(mixture(x, inside).x0, wanted, atol=1e-5)


def test_the_account_holds_every_guidance(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.png"
    words = ("sample", runs / "plain", "--class", "ox", "-n", 1, "--steps", 3, "--classifier-guidance", 2)
    assert says(capsys, *words, "--device", "cpu", "--out", out)[0] == 0
    made = read_origin(out)
    assert made.classes is None
    text = Image.open(out).text["parameters"]  # type: ignore[attr-defined]
    assert text.startswith("ox\n")
    assert "Classifier guidance: 2" in text


WRONG: dict[str, tuple[tuple[object, ...], str]] = {
    "no classifier": (
        ("sample", "{runs}/weak", "--class", "cat", "--classifier-guidance", 2), "train-classifier"
    ),
    "no class": (
        ("sample", "{runs}/plain", "--class", "none", "--classifier-guidance", 2), "ask for classes"
    ),
    "another class": (
        ("sample", "{runs}/plain", "--class", "cow", "--classifier-guidance", 2), "no class is called 'cow'"
    ),
    "class alone": (("sample", "{runs}/plain", "--class", "cat"), "without classes"),
    "nan": (("sample", "{runs}/plain", "--class", "cat", "--classifier-guidance", "nan"), "finite"),
    "interval": (("sample", "{runs}/pets", "--interval", "3"), "two values"),
    "interval, turned": (("sample", "{runs}/pets", "--interval", "3,1"), "the lower one first"),
    "phi": (("sample", "{runs}/pets", "--guidance", 2, "--rescale", 2), "from 0"),
    "threshold": (("sample", "{runs}/pets", "--threshold", 0), "above 0"),
    "autoguide": (("sample", "{runs}/pets", "--autoguide", "{runs}/nowhere"), "no such folder"),
    "other classes": (("sample", "{runs}/pets", "--autoguide", "{runs}/plain"), "other conditions"),
    "autoguide nan": (
        ("sample", "{runs}/pets", "--autoguide", "{runs}/weak", "--autoguide-scale", "inf"), "finite"
    ),
    "no classes in the data": (("train-classifier", "{runs}/pets", "{flat}"), "no classes to tell apart"),
    "other classes in the data": (("train-classifier", "{runs}/pets", "{other}"), "are not those of"),
    "no run": (("train-classifier", "{runs}/nowhere", "{photos}"), "no such folder"),
    "model": (("train-classifier", "{runs}/pets", "{photos}", "--model", "vast"), "--model is one of"),
    "steps": (("train-classifier", "{runs}/pets", "{photos}", "--steps", 0), "one of --steps"),
    "batch": (("train-classifier", "{runs}/pets", "{photos}", "--batch", 0), "--batch"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), WRONG.values(), ids=WRONG)
def test_mistakes_are_told_in_one_sentence(
    words: tuple[object, ...],
    sentence: str,
    runs: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flat, other = tmp_path / "flat", tmp_path / "other"
    shutil.copytree(photos / "cat", flat)
    shutil.copytree(photos, other)
    (other / "cat").rename(other / "bee")
    said = [str(word).format(runs=runs, photos=photos, flat=flat, other=other) for word in words]
    code, _, err = says(capsys, *said, "--device", "cpu")
    assert code == 1
    assert sentence in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
