"""`sfumato evaluate` and its Python form: what is chosen and written, one sentence a mistake."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from corpora import small
from sfumato import cli
from sfumato.card import DataSettings, ImageSettings
from sfumato.data.decode import decode
from sfumato.data.prepare import prepare
from sfumato.errors import SettingsError
from sfumato.evaluation import likelihood
from sfumato.evaluation.mean import Mean
from sfumato.evaluation.pictures import Pictures, choose
from sfumato.evaluation.variational import Continuous, Steps
from sfumato.predictions import V
from sfumato.runs import Run, load
from sfumato.schedules import RectifiedFlow
from sfumato.tables import Table

FAST = ("--steps", "12", "--tolerance", "0.1", "-n", "6", "--device", "cpu")


def picture(i: int, side: tuple[int, int] = (8, 8), deep: bool = False, colour: bool = False) -> Image.Image:
    ramp = (np.arange(side[0] * side[1]).reshape(side) * (7 + i) + 11 * i) % 256
    if deep:
        return Image.fromarray((ramp * 200 + 13).astype(np.uint16))
    grey = ramp.astype(np.uint8)
    return Image.fromarray(np.stack([grey, 255 - grey, grey // 2], axis=2) if colour else grey)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of pictures and runs; `own` was trained on `pets` and held some of its pictures out."""
    home = tmp_path_factory.mktemp("home")
    kinds = {
        "pets": {}, "large": {"side": (12, 10)}, "tiny": {"side": (6, 8)}, "deep": {"deep": True},
        "coloured": {"colour": True},
    }  # fmt: skip
    for kind, how in kinds.items():
        for i in range(30 if kind == "pets" else 4):
            folder = home / kind / (small.CLASSES[i % 3] if kind == "pets" else "")
            folder.mkdir(parents=True, exist_ok=True)
            picture(i, **how).save(folder / f"{i}.png")
    (home / "empty").mkdir()
    (home / "others").mkdir()
    for i in range(6):
        folder = home / "others" / ("wolf" if i % 2 else "fox")
        folder.mkdir(exist_ok=True)
        picture(i).save(folder / f"{i}.png")
    found = prepare(home / "pets", size=8, hold_out=0.5)
    data = DataSettings(fingerprint=found.fingerprint, images=len(found.train), held_out=len(found.held))
    own = small.card(classes=small.CLASSES, schedule=Table.cosine(), prediction=V(), data=data)
    small.make(home / "own", own)
    strict = small.unet(1, 3, null_class=False)
    small.make(home / "strict", small.card(classes=small.CLASSES, network=strict, schedule=Table.cosine()))
    small.make(home / "flow", small.card(schedule=RectifiedFlow(), prediction=V()))
    small.make(home / "mute", small.card(schedule=Table.cosine().zero_terminal_snr()))
    image = ImageSettings(channels=3, height=8, width=8, bits=16)
    small.make(home / "deep-colour", small.card(channels=3, image=image, schedule=Table.cosine()))
    learned = small.card(
        network=small.unet(out_channels=2), schedule=Table.cosine(), prediction=V(), learned_variance=True
    )
    small.make(home / "learned", learned)
    return home


@pytest.fixture(scope="module")
def own(home: Path) -> Run:
    return load(home / "own", "cpu")


def says(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str], str]:
    code = cli.run([str(word) for word in words])
    out = capsys.readouterr()
    return code, out.out.splitlines(), out.err


# what is chosen


def test_the_held_out_pictures_are_those_that_training_held_out(home: Path, own: Run) -> None:
    kept = prepare(home / "pets", size=8, hold_out=0.5)
    assert 2 < len(kept.held) < 20
    for split, rows in (("held-out", kept.held), ("train", kept.train), ("all", np.arange(30))):
        found = choose(own, home / "pets", n=100, split=split)  # type: ignore[arg-type]
        wanted = kept.images(rows).double()
        assert len(found) == len(rows)
        order = torch.cdist(found.x0.flatten(1), wanted.flatten(1)).argmin(1)
        assert sorted(order.tolist()) == list(range(len(rows)))
        assert torch.allclose(found.x0, wanted[order], atol=1e-6)
        assert found.classes == tuple(kept.labels[rows][order].tolist())  # type: ignore[index]
    assert len(choose(own, home / "pets")) == len(kept.held)


def test_pictures_are_exact_values_of_the_bins(home: Path, own: Run) -> None:
    x0 = choose(own, home / "pets", n=5).x0
    assert x0.dtype == torch.float64
    assert torch.equal(x0, -1 + ((x0 + 1) * 127.5).round() * (2 / 255))
    with pytest.raises(SettingsError, match="whole numbers of 256 values"):
        Pictures.of(own, x0 + 0.001)
    with pytest.raises(SettingsError, match="whole numbers"):
        Pictures.of(own, x0 * 1.5)
    with pytest.raises(SettingsError, match=r"it needs \(n, 1, 8, 8\)"):
        Pictures.of(own, x0[:, :, 1:])
    with pytest.raises(SettingsError, match="at least 2"):
        Pictures.of(own, x0[:1])


def test_the_seed_chooses_and_classes_go_by_name(home: Path, own: Run) -> None:
    one, two = (choose(own, home / "pets", n=8, split="all", seed=seed).x0 for seed in (0, 1))
    assert torch.equal(one, choose(own, home / "pets", n=8, split="all").x0)
    assert not torch.equal(one, two)
    other = choose(own, home / "others", n=6)
    assert other.classes == (None,) * 6
    assert '"no class"' in other.about[-1]
    assert choose(load(home / "flow", "cpu"), home / "pets").classes is None


def test_larger_pictures_are_fitted_and_shallow_ones_said(home: Path) -> None:
    found = choose(load(home / "flow", "cpu"), home / "large")
    assert found.x0.shape == (4, 1, 8, 8)
    assert any("4 of them fitted to 8 x 8" in words for words in found.about)
    deep = choose(load(home / "deep-colour", "cpu"), home / "coloured")
    assert deep.bins.count == 65536
    assert any("256 of its 65,536 values" in words for words in deep.about)


# what is measured


def test_the_figures_are_the_same_in_any_batch_and_conditions_matter(home: Path, own: Run) -> None:
    pictures = choose(own, home / "pets", n=7)
    process = likelihood.process_of(own, steps=12, terms=5)
    one = likelihood.bound(own, pictures, process, batch=3)
    assert torch.allclose(one.bits, likelihood.bound(own, pictures, process).bits, rtol=1e-5)
    nothing = likelihood.bound(own, replace(pictures, classes=(None,) * 7), process)
    assert not torch.allclose(one.bits, nothing.bits, rtol=1e-5)
    flow = likelihood.flow(own, pictures, tolerance=0.1, batch=4)
    assert torch.allclose(flow.bits, likelihood.flow(own, pictures, tolerance=0.1).bits, rtol=1e-4)


def test_a_run_has_its_own_process(home: Path, own: Run) -> None:
    process = likelihood.process_of(own)
    assert isinstance(process, Steps)
    assert (len(process.levels), process.variance, len(process.sizes)) == (1000, "small", 50)
    assert len(likelihood.process_of(own, terms=None).sizes) == 999
    flow, learned = load(home / "flow", "cpu"), load(home / "learned", "cpu")
    assert isinstance(likelihood.process_of(flow), Continuous)
    assert isinstance(likelihood.process_of(flow, steps=10), Steps)
    process = likelihood.process_of(learned, steps=10)
    assert isinstance(process, Steps)
    assert process.variance == "learned"
    pictures = choose(learned, home / "pets", n=4)
    between = likelihood.bound(learned, pictures, process).total.value
    small_, large = (
        likelihood.bound(learned, pictures, likelihood.process_of(learned, 10, v)).total.value
        for v in ("small", "large")
    )
    assert between not in (small_, large)
    assert large < small_  # nothing is trained, so the errors are large


@pytest.mark.slow
def test_the_command_writes_what_python_gives(
    home: Path, own: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("evaluate", home / "own", home / "pets", "--nll", "--rate-distortion", *FAST)
    code, lines, err = says(capsys, *words, "--out", tmp_path / "new" / "folder")
    assert (code, err) == (0, "")
    assert lines[0].startswith("pictures   6 of ")
    assert lines[0].endswith("that the run held out, each with its own class")
    assert lines[1] == "depth      8 bits, 8 x 8, 1 channel"
    assert lines[2] == "estimates  of x0 clipped to [-1, 1]"
    said = json.loads((tmp_path / "new" / "folder" / "likelihood.json").read_text())
    pictures = choose(own, home / "pets", n=6)
    process = likelihood.process_of(own, steps=12)
    found = likelihood.bound(own, pictures, process)
    assert said["bound"]["bits_per_dimension"] == {"value": found.total.value, "error": found.total.error}
    assert said["bound"]["process"] == {"kind": "steps", "steps": 12, "terms": 11, "variance": "small"}
    assert len(said["bound"]["log_snr"]) == 12
    parts = [part["value"] for part in said["bound"]["parts"]]
    whole = said["bound"]["prior"]["value"] + sum(parts) + said["bound"]["decoder"]["value"]
    assert whole == pytest.approx(found.total.value)
    assert (said["bits"], said["pictures"], said["weights_sha256"]) == (8, 6, own.sha256)
    value = likelihood.flow(own, pictures, process, dequantise="noise", tolerance=0.1)
    assert said["flow"][0]["bits_per_dimension"]["value"] == Mean.of(value.bits).value
    for flow in said["flow"]:
        left = found.total.value - flow["bits_per_dimension"]["value"]
        assert flow["gap"]["value"] == pytest.approx(left)
    assert [flow["dequantise"] for flow in said["flow"]] == ["noise", "uniform"]
    row = next(line for line in lines if line.startswith("bound, 12 steps, small variance"))
    assert row.split()[-3:] == [f"{found.total.value:.4f}", "+-", f"{found.total.error:.4f}"]
    curve = json.loads((tmp_path / "new" / "folder" / "rate-distortion.json").read_text())
    rates = [point["rate"]["value"] for point in curve["curve"]]
    assert rates[-1] == pytest.approx(found.total.value)
    assert curve["curve"][-1]["distortion"]["value"] == 0
    grid = decode(tmp_path / "new" / "folder" / "progressive.png").array
    columns = len(curve["shown"]) + 1
    assert grid.shape == (8 * (6 * 10 - 2), 8 * (columns * 10 - 2), 1)
    last = grid[:64:8, -64::8, 0]  # eight times enlarged
    assert np.array_equal(last, ((pictures.x0[0, 0] + 1) * 127.5).round().numpy().astype(np.uint8))
    assert decode(tmp_path / "new" / "folder" / "rate-distortion.png").array.std() > 1
    names = ("rate-distortion.json", "rate-distortion.png", "progressive.png", "report.html")
    assert [line for line in lines if line.startswith(str(tmp_path)) and "likelihood" not in line] == [
        str(tmp_path / "new" / "folder" / name) for name in names
    ]
    assert not (home / "own" / "README.md").exists()  # the card goes with the run's own evaluation


def test_a_curve_is_in_continuous_time_and_files_go_into_the_run(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("evaluate", home / "flow", home / "pets", "--nll", "--terms", 8, "-n", 4, "--flow", "none")
    code, lines, _ = says(capsys, *words, "--no-clip", "--device", "cpu")
    assert code == 0
    assert lines[2] == "estimates  of x0 as they are, not clipped"
    assert any(line.startswith("bound, continuous time") for line in lines)
    said = json.loads((home / "flow" / "evaluation" / "likelihood.json").read_text())
    assert said["bound"]["process"] == {"kind": "continuous", "terms": 8}
    assert said["flow"] == []
    assert said["clip"] is False


def test_a_process_of_one_level_is_measured_too(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("evaluate", home / "own", home / "pets", "--nll", "--rate-distortion", "--steps", 1, "-n", 2)
    code, _, _ = says(capsys, *words, "--flow", "none", "--device", "cpu", "--out", tmp_path)
    assert code == 0
    said = json.loads((tmp_path / "likelihood.json").read_text())["bound"]
    assert said["steps"]["value"] == 0
    assert said["decoder"]["value"] > 5  # nothing is known before the last step
    assert len(json.loads((tmp_path / "rate-distortion.json").read_text())["curve"]) == 2


OWN, PETS = "{home}/own", "{home}/pets"
MISTAKES: dict[str, tuple[list[str], str]] = {
    "metric": ([OWN, PETS, "--metrics", "kid,nice"], "--metrics are some of kid, fid"),
    "no metric": ([OWN, PETS, "--metrics", ","], "--metrics names none"),
    "too few for a metric": ([OWN, PETS, "--metrics", "kid", "-n", "60"], "kid needs at least 50 real"),
    "too few samples": ([OWN, PETS, "--metrics", "kid", "-n", "3"], "kid needs at least 50 generated"),
    "other classes": ([OWN, "{home}/others", "--loss"], "its classes are not those"),
    "features": ([OWN, PETS, "--novelty", "--features", "eyes"], "choose one of lite0"),
    "no weights": ([OWN, PETS, "--novelty", "--features", "clip"], "--features-weights"),
    "resize": ([OWN, PETS, "--loss", "--resize", "squash"], "--resize is one of"),
    "watts": ([OWN, PETS, "--loss", "--watts", "0"], "--watts is the power"),
    "a folder's likelihood": ([PETS, PETS, "--nll"], "is a folder of pictures and no run"),
    "sizes": (["{home}/large", PETS, "--metrics", "kid"], "bring both to one size with --size"),
    "a folder's novelty": (
        [PETS, PETS, "--metrics", "kid", "--novelty"],
        "is a folder of pictures and no run",
    ),
    "a folder's number": ([PETS, PETS, "-n", "9"], "--number is of a run, and this is a folder of pictures"),
    "a folder's variance": ([PETS, PETS, "--variance", "small"], "--variance is of a run"),
    "a run's size": ([OWN, PETS, "--loss", "--size", "8"], "--size is of a folder of pictures"),
    "steps of no likelihood": ([OWN, PETS, "--loss", "--steps", "9"], "--steps is of --nll, which was not"),
    "no run": (["{home}/nothing", PETS, "--nll"], "no such folder"),
    "no data": ([OWN, "{home}/nothing", "--nll"], "there is no"),
    "no pictures": ([OWN, "{home}/empty", "--nll"], "no pictures"),
    "too few": ([OWN, PETS, "--nll", "-n", "1"], "-n 1"),
    "smaller": ([OWN, "{home}/tiny", "--nll"], "8 x 6 is smaller than the model's 8 x 8"),
    "colour for grey": ([OWN, "{home}/coloured", "--nll"], "colour pictures for a model of grey ones"),
    "grey for colour": (["{home}/deep-colour", PETS, "--nll"], "grey pictures for a model of colour"),
    "deep": ([OWN, "{home}/deep", "--nll"], "16-bit pictures for a model of 8-bit ones"),
    "classes": (["{home}/strict", "{home}/others", "--nll"], "needs a class for every picture"),
    "split": ([OWN, PETS, "--nll", "--split", "test"], "--split is one of"),
    "split of others": ([OWN, "{home}/others", "--nll", "--split", "train"], "not known as these"),
    "steps": ([OWN, PETS, "--nll", "--steps", "1001"], "1001 steps: give a number from 1 to 1,000"),
    "variance": ([OWN, PETS, "--nll", "--variance", "huge"], "--variance is one of"),
    "learned": ([OWN, PETS, "--nll", "--variance", "learned"], "no learned variance"),
    "variance of a curve": (["{home}/flow", PETS, "--nll", "--variance", "small"], "--steps"),
    "no estimate at the end": (["{home}/mute", PETS, "--nll"], "Epsilon prediction says nothing"),
    "terms": ([OWN, PETS, "--nll", "--terms", "0"], "--terms"),
    "terms, a word": ([OWN, PETS, "--nll", "--terms", "many"], "--terms"),
    "flow": ([OWN, PETS, "--nll", "--flow", "sideways"], "--flow is one of"),
    "tolerance": ([OWN, PETS, "--nll", "--tolerance", "0"], "tolerance"),
    "batch": ([OWN, PETS, "--nll", "--batch", "0"], "batch cannot be 0"),
    "device": ([OWN, PETS, "--nll", "--device", "tpu"], "--device"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_1(
    what: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, expected = MISTAKES[what]
    code, _, err = says(capsys, "evaluate", *(word.replace("{home}", str(home)) for word in words))
    assert code == 1
    assert err.startswith("error: ")
    assert expected in err
    assert err.count("\n") == 1


def test_a_model_that_says_nan_is_named(home: Path, own: Run) -> None:
    broken = load(home / "own", "cpu")
    with torch.no_grad():
        next(broken.model.parameters()).fill_(float("nan"))
    with pytest.raises(Exception, match="6 of 6 pictures is not finite"):
        likelihood.bound(broken, choose(own, home / "pets", n=6), likelihood.process_of(own, steps=3))
