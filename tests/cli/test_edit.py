"""`sfumato edit`: what stays in the file stays to the bit; what it writes can be made again; its mistakes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato import cli
from sfumato.cli.edit import TASKS
from sfumato.data.decode import decode
from sfumato.editing.record import pixel_hash
from sfumato.files.pictures import read_recipe, to_bytes, write_png
from sfumato.runs import load

pytestmark = pytest.mark.slow

QUICK = ("--steps", 4, "--resample", 2)


def says(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str], str]:
    """Exit code, lines, and what went to the error stream."""
    code = cli.run([str(word) for word in words])
    out = capsys.readouterr()
    return code, out.out.splitlines(), out.err


def numbers(*shape: int, seed: int = 0, top: int = 256) -> np.ndarray:
    kind = np.uint16 if top > 256 else np.uint8
    return np.random.default_rng(seed).integers(0, top, shape).astype(kind)


def hole(height: int, width: int, value: int = 255) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : 3 * width // 4] = value
    return mask


@pytest.fixture(scope="module")
def desk(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and masks beside the runs: 8 x 8 is the runs' size."""
    folder = tmp_path_factory.mktemp("desk")
    save = lambda array, name: Image.fromarray(array).save(folder / name)
    save(numbers(8, 8), "grey.png")
    save(numbers(8, 8, 3), "colour.png")
    save(numbers(8, 8, top=65536), "grey16.png")
    opaque = np.dstack([numbers(8, 8, 3), np.full((8, 8), 255, np.uint8)])
    save(opaque, "opaque.png")
    save(np.dstack([numbers(8, 8, 3), 255 - hole(8, 8)]), "torn.png")
    save(np.dstack([numbers(8, 8)] * 3), "grey_as_colour.png")
    save(numbers(20, 30), "large.png")
    scratched = numbers(8, 8, seed=3) // 2 + 60
    scratched[:, 4] = 255
    save(scratched, "scratched.png")
    save(hole(8, 8), "mask.png")
    save(hole(8, 8, 128), "soft.png")
    save(hole(20, 30), "large_mask.png")
    save(numbers(8, 8, 3), "colour_mask.png")
    save(np.zeros((8, 8), np.uint8), "empty.png")
    (folder / "text.png").write_text("no picture")
    return folder


# known pixels stay to the bit


@pytest.mark.parametrize(
    ("run", "name"),
    [
        ("pets", "grey.png"),
        ("pets", "grey16.png"),
        ("pets", "grey_as_colour.png"),
        ("deep", "colour.png"),
        ("deep", "opaque.png"),
        ("deep", "grey.png"),
    ],
)
def test_what_the_mask_leaves_stays_in_the_file(
    run: str, name: str, home: Path, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.png"
    words = ("edit", "inpaint", home / run, desk / name, "--mask", desk / "mask.png", "--out", out)
    assert says(capsys, *words, *QUICK) == (0, [str(out)], "")
    old, new = decode(desk / name).array, decode(out).array
    assert new.dtype == old.dtype
    if name == "grey.png" and run == "deep":
        old = np.repeat(old, 3, axis=2)
    assert new.shape == old.shape
    mask = hole(8, 8) > 0
    assert np.array_equal(new[~mask], old[~mask])
    assert not np.array_equal(new[mask], old[mask])


@pytest.mark.parametrize("task", ["inpaint", "replace", "remove"])
def test_every_task_with_a_mask_keeps_the_rest(
    task: str, home: Path, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ("edit", task, home / "pets", desk / "grey.png", "--mask", desk / "mask.png", "--out", out)
    code, lines, _ = says(capsys, *words, "-n", 3, "--class", "dog", "--guidance", 2, *QUICK)
    assert (code, len(lines)) == (0, 3)
    old = decode(desk / "grey.png").array[..., 0]
    grown = np.zeros((8, 8), bool)
    grown[0:6] = True  # the hole and two pixels around it
    kept = ~grown if task == "remove" else hole(8, 8) == 0
    results = [decode(Path(line)).array[..., 0] for line in lines]
    for new in results:
        assert np.array_equal(new[kept], old[kept])
    assert not np.array_equal(results[0], results[1])


def test_a_feather_changes_its_rim_and_nothing_beyond(
    home: Path, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.png"
    words = ("edit", "inpaint", home / "pets", desk / "grey.png", "--mask", desk / "mask.png", "--out", out)
    assert says(capsys, *words, "--feather", 1, *QUICK)[0] == 0
    old, new = decode(desk / "grey.png").array[..., 0], decode(out).array[..., 0]
    rim = np.zeros((8, 8), bool)
    rim[1:5, 1:7] = True
    assert np.array_equal(new[~rim], old[~rim])
    assert not np.array_equal(new[rim & (hole(8, 8) == 0)], old[rim & (hole(8, 8) == 0)])


def test_a_crop_edits_pictures_of_any_size(
    home: Path, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The large mask needs a part that is larger than the model's pictures; the small one does not."""
    small = np.zeros((20, 30), np.uint8)
    small[14:17, 25:29] = 255
    Image.fromarray(small).save(tmp_path / "small.png")
    for mask in (desk / "large_mask.png", tmp_path / "small.png"):
        out = tmp_path / f"out-{mask.name}"
        words = ("edit", "inpaint", home / "pets", desk / "large.png", "--mask", mask, "--crop", "--out", out)
        assert says(capsys, *words, *QUICK)[0] == 0
        old, new = decode(desk / "large.png").array[..., 0], decode(out).array[..., 0]
        drawn = decode(mask).array[..., 0] > 0
        assert new.shape == (20, 30)
        assert np.array_equal(new[~drawn], old[~drawn])
        assert (new[drawn] != old[drawn]).mean() > 0.8


def test_a_resized_picture_keeps_what_the_model_sees_of_it(
    home: Path, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sfumato.data.fit import fit

    out = tmp_path / "out.png"
    masked = ("--mask", desk / "large_mask.png", "--resize", "stretch", "--out", out)
    assert says(capsys, "edit", "inpaint", home / "pets", desk / "large.png", *masked, *QUICK)[0] == 0
    small = fit(decode(desk / "large.png").array, (8, 8), "stretch", 1, False)
    new = decode(out).array
    assert new.shape == (8, 8, 1)
    assert np.array_equal(new[5:], small[5:])


def test_outpainting_goes_beyond_the_models_size(
    home: Path, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.png"
    sides = ("--left", 6, "--bottom", 3, "--out", out)
    assert says(capsys, "edit", "outpaint", home / "deep", desk / "opaque.png", *sides, *QUICK)[0] == 0
    new = decode(out).array
    assert new.shape == (11, 14, 4)
    assert np.array_equal(new[:8, 6:], decode(desk / "opaque.png").array)
    assert bool((new[..., 3] == 255).all())


def test_restoring_what_is_transparent_or_white_and_what_is_noisy(
    home: Path, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.png"
    torn = ("edit", "restore", home / "deep", desk / "torn.png", "--missing", "transparent", "--out", out)
    assert says(capsys, *torn, *QUICK)[0] == 0
    old, new = decode(desk / "torn.png").array, decode(out).array
    lost = hole(8, 8) > 0
    assert new.shape == (8, 8, 3)
    assert np.array_equal(new[~lost], old[~lost][:, :3])
    white = ("edit", "restore", home / "pets", desk / "scratched.png", "--missing", "white", "--out", out)
    assert says(capsys, *white, *QUICK)[0] == 0
    old, new = decode(desk / "scratched.png").array[..., 0], decode(out).array[..., 0]
    changed = (old != new).any(axis=0)
    assert changed.tolist() == [column == 4 for column in range(8)]
    noisy = ("edit", "restore", home / "pets", desk / "grey.png", "--noise", "auto", "--out", out)
    code, lines, _ = says(capsys, *noisy, *QUICK)
    assert code == 0
    assert lines[0].startswith("the noise is estimated at 0.")


# what it writes


def test_img2img_is_what_the_api_gives(
    home: Path, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from sfumato.editing.img2img import img2img
    from sfumato.editing.job import bench

    out = tmp_path / "out.png"
    words = ("edit", "img2img", home / "pets", desk / "grey.png", "--strength", 0.5, "--class", "cat")
    assert says(capsys, *words, "--steps", 6, "--seed", 4, "--guidance", 2, "--out", out)[0] == 0
    run = load(home / "pets", "cpu")
    b = bench(run, run.recipe(1, classes="cat", steps=6, seed=4, guidance=2))
    picture = torch.from_numpy(numbers(8, 8).astype(np.float32))[None] / 127.5 - 1
    made = b.finished(img2img(b.denoise, b.rows(picture), b.levels, b.noise, 0.5))
    assert np.array_equal(decode(out).array[..., 0], to_bytes(made[0]))
    with Image.open(out) as image:
        image.load()
        said = image.text["parameters"]  # type: ignore[attr-defined]
    assert said.startswith("cat\nSteps: 6, ")
    assert said.endswith("Denoising strength: 0.5, Edit: img2img")


def test_what_is_no_picture_in_the_runs_range_is_refused_by_the_api_too(home: Path) -> None:
    import torch

    from sfumato.editing.job import bench
    from sfumato.errors import SettingsError

    run = load(home / "pets", "cpu")
    b = bench(run, run.recipe(2, steps=6))
    good = torch.linspace(-1, 1, 64).reshape(1, 8, 8)
    assert b.rows(good).shape == (2, 1, 8, 8)
    assert b.each(good * 9).shape == (2, 1, 8, 8)
    lost = good.clone()
    lost[0, 0, 0] = float("nan")
    for wrong, why in {
        "bytes": (good.add(1).mul(127).byte(), "not uint8 in"),
        "height, width, channels": (good.permute(1, 2, 0), "(1, H, W)"),
        "no channel": (good[0], "(1, H, W)"),
        "0 to 255": (good.add(1).mul(127.5), "from 0 to 255: scale it"),
        "not a number": (lost, "nan"),
    }.values():
        with pytest.raises(SettingsError) as refused:
            b.rows(wrong)
        assert why in str(refused.value)


def test_an_ensemble_is_two_pictures(
    home: Path, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mean and deviation of what the same seeds give one by one."""
    common = ("edit", "inpaint", home / "pets", desk / "grey.png", "--mask", desk / "mask.png", *QUICK)
    code, lines, _ = says(capsys, *common, "--ensemble", 5, "--out", tmp_path / "x.png")
    assert (code, [Path(line).name for line in lines]) == (0, ["x-mean.png", "x-deviation.png"])
    _, each, _ = says(capsys, *common, "-n", 5, "--out", tmp_path / "each")
    all_of_them = np.stack([decode(Path(line)).array[..., 0] for line in each]).astype(float)
    mean, deviation = (decode(Path(line)).array[..., 0] for line in lines)
    kept = hole(8, 8) == 0
    assert np.array_equal(mean[kept], decode(desk / "grey.png").array[..., 0][kept])
    assert bool((deviation[kept] == 0).all())
    assert np.abs(mean - all_of_them.mean(0)).max() <= 0.5 + 1e-6
    assert np.abs(deviation - np.minimum(2 * all_of_them.std(0, ddof=1), 255)).max() <= 0.5 + 1e-6


def test_several_pictures_go_into_a_folder_and_a_grid_is_one_file(
    home: Path, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = (desk / "grey.png", desk / "scratched.png")
    code, lines, _ = says(capsys, "edit", "img2img", home / "pets", *both, "--steps", 3, "--out", tmp_path)
    names = ["grey-img2img-seed0", "scratched-img2img-seed0"]  # and a mark behind each
    assert (code, [Path(line).stem.rpartition("-")[0] for line in lines]) == (0, names)
    out = tmp_path / "grid.png"
    words = ("edit", "img2img", home / "pets", both[0], "-n", 2, "--class", "all", "--steps", 3)
    assert says(capsys, *words, "--out", out)[:2] == (0, [str(out)])
    assert decode(out).array.shape == (28, 18, 1)
    assert says(capsys, "replay", out)[1] == [f"{out}: identical"]
    (line,) = says(capsys, "edit", "img2img", home / "pets", both[0], "--steps", 3)[1]
    assert line.startswith(str(home / "pets" / "edits" / "grey-img2img-seed0-"))


# made again

EDITS: dict[str, tuple[str, ...]] = {
    "img2img": ("--strength", "0.7"),
    "inpaint": ("--mask", "{desk}/mask.png", "--feather", "1"),
    "replace": ("--mask", "{desk}/soft.png", "--class", "ox", "--grow", "1"),
    "remove": ("--mask", "{desk}/mask.png", "--jump", "2"),
    "outpaint": ("--right", "5"),
    "restore": ("--mask", "{desk}/mask.png", "--noise", "0.2"),
}


@pytest.mark.parametrize("how", ["one", "of a batch", "ensemble"])
@pytest.mark.parametrize("task", EDITS)
def test_an_edit_is_replayed_identically(
    task: str, how: str, home: Path, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [word.replace("{desk}", str(desk)) for word in EDITS[task]]
    more: dict[str, tuple[object, ...]] = {
        "one": ("--out", tmp_path / "x.png"),
        "of a batch": ("-n", 3, "--sampler", "ddpm", "--out", tmp_path / "x"),
        "ensemble": ("--ensemble", 3, "--out", tmp_path / "x.png"),
    }
    quick = QUICK[:2] if task == "img2img" else QUICK
    words = ("edit", task, home / "pets", desk / "grey.png", *own, *more[how], *quick, "--seed", 7)
    code, lines, err = says(capsys, *words)
    assert (code, err) == (0, "")
    for line in lines:
        assert says(capsys, "replay", line) == (0, [f"{line}: identical"], "")


def test_a_chain_is_made_again_from_nothing_but_its_end(
    home: Path, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sample, edited, edited again into another folder; then sample and first edit are gone."""
    shutil.copy(desk / "mask.png", tmp_path / "mask.png")
    first, second, third = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "far" / "c.png"
    says(capsys, "sample", home / "pets", "-n", 1, "--class", "ox", "--steps", 3, "--out", first)
    words = ("edit", "inpaint", home / "pets", first, "--mask", tmp_path / "mask.png", "--out", second)
    assert says(capsys, *words, *QUICK)[0] == 0
    assert says(capsys, "edit", "img2img", home / "pets", second, "--steps", 4, "--out", third)[0] == 0
    hashes = [source["sha256"] for source in read_recipe(third)["sources"]]  # type: ignore[index,attr-defined]
    assert hashes == [pixel_hash(decode(second).array)]
    first.unlink()
    second.unlink()
    assert says(capsys, "replay", third)[1] == [f"{third}: identical"]
    fourth = tmp_path / "d.png"
    assert says(capsys, "replay", third, "--out", fourth)[1][1:] == [str(fourth)]
    assert says(capsys, "replay", fourth)[1] == [f"{fourth}: identical"]
    (tmp_path / "mask.png").rename(tmp_path / "moved.png")
    code, _, err = says(capsys, "replay", third)
    assert (code, "is gone: give that picture with --source" in err) == (1, True)
    assert says(capsys, "replay", third, "--source", tmp_path / "moved.png")[0] == 0


def test_a_source_that_changed_is_not_taken_for_what_was_edited(
    home: Path, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "out.png"
    shutil.copy(desk / "grey.png", photo)
    says(capsys, "edit", "img2img", home / "pets", photo, "--steps", 3, "--out", out)
    Image.fromarray(numbers(8, 8, seed=9)).save(photo)
    code, _, err = says(capsys, "replay", out)
    assert (code, "is no longer what was edited" in err) == (1, True)
    assert says(capsys, "replay", out, "--source", desk / "grey.png")[0] == 0
    with Image.open(desk / "grey.png") as image:
        image.save(photo, compress_level=1, pnginfo=None)  # other bytes, the same pixels
    assert says(capsys, "replay", out)[0] == 0


def test_an_edit_never_writes_over_what_it_was_made_from(
    home: Path, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.png"
    shutil.copy(desk / "grey.png", photo)
    before = photo.read_bytes()
    code, _, err = says(capsys, "edit", "img2img", home / "pets", photo, "--steps", 2, "--out", photo)
    assert (code, "what the edit is made from" in err) == (1, True)
    assert photo.read_bytes() == before


LIES: list[dict[str, object]] = [
    {"task": "dance"},
    {"options": {}},
    {"options": {"strength": "much"}},
    {"options": {"strength": 7.0}},
    {"images": ["elsewhere.png"]},
    {"sources": [{"role": "picture"}]},
    {"sources": []},
    {"origin": {}},
    {"shows": "nothing"},
    {"resize": "bend"},
    {"evil": 1},
]


@pytest.mark.parametrize("lie", LIES, ids=[str(lie)[:40] for lie in LIES])
def test_what_an_edit_says_is_judged(
    lie: dict[str, object], home: Path, desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.png"
    says(capsys, "edit", "img2img", home / "pets", desk / "grey.png", "--steps", 2, "--out", out)
    write_png(out, decode(out).array, parameters="", recipe={**read_recipe(out), **lie})
    code, lines, err = says(capsys, "replay", out)
    assert (code, lines) == (1, [])
    assert err.startswith("error: ")
    assert err.count("\n") == 1


# mistakes

EDIT = ["{home}/pets", "{desk}/grey.png"]
WITH_MASK = [*EDIT, "--mask", "{desk}/mask.png"]
MISTAKES: dict[str, tuple[list[str], str]] = {
    "mask of another size": (["inpaint", *EDIT, "--mask", "{desk}/large_mask.png"], "of the picture's size"),
    "mask in colour": (["inpaint", *EDIT, "--mask", "{desk}/colour_mask.png"], "give a grey one"),
    "empty mask": (["inpaint", *EDIT, "--mask", "{desk}/empty.png"], "0 everywhere"),
    "no such mask": (["inpaint", *EDIT, "--mask", "{desk}/nothing.png"], "no such file"),
    "no picture": (["inpaint", "{home}/pets", "{desk}/text.png", "--mask", "{desk}/mask.png"], "its first"),
    "picture of another size": (["img2img", "{home}/pets", "{desk}/large.png"], "--resize crop, stretch"),
    "colour for grey": (["img2img", "{home}/pets", "{desk}/colour.png"], "say --resize"),
    "transparent": (["img2img", "{home}/deep", "{desk}/torn.png"], "say --resize"),
    "how to resize": (["img2img", *EDIT, "--resize", "bend"], "one of crop, stretch, pad"),
    "no strength": (["img2img", *EDIT, "--strength", "0"], "above 0"),
    "strength above": (["img2img", *EDIT, "--strength", "1.2"], "above 0"),
    "strength nan": (["inpaint", *WITH_MASK, "--strength", "nan"], "above 0"),
    "guidance inf": (["img2img", *EDIT, "--class", "cat", "--guidance", "inf"], "finite"),
    "class": (["img2img", *EDIT, "--class", "catt"], "did you mean cat"),
    "prompt": (["img2img", *EDIT, "--prompt", "a cat"], "without captions"),
    "attribute": (["img2img", *EDIT, "--set", "age=3"], "without attributes"),
    "replace by nothing": (["replace", *WITH_MASK], "replace by what"),
    "resample": (["inpaint", *WITH_MASK, "--resample", "0"], "at least 1"),
    "grow": (["remove", *WITH_MASK, "--grow", "-1"], "0 or more"),
    "no margins": (["outpaint", *EDIT], "at least one above 0"),
    "negative margin": (["outpaint", *EDIT, "--left", "-3", "--top", "9"], "none below"),
    "small canvas": (["outpaint", "{home}/pets", "{desk}/small.png", "--left", "1"], "at least as large"),
    "nothing to restore": (["restore", *EDIT], "nothing to restore"),
    "nothing missing": (["restore", *EDIT, "--missing", "transparent"], "no pixel that is transparent"),
    "missing what": (["restore", *EDIT, "--missing", "purple"], "black, white, transparent"),
    "noise": (["restore", *EDIT, "--noise", "much"], "give auto"),
    "no noise": (["restore", *EDIT, "--noise", "0"], "give auto"),
    "ensemble of one": (["img2img", *EDIT, "--ensemble", "1"], "at least 2"),
    "ensemble and number": (["img2img", *EDIT, "--ensemble", "4", "-n", "4"], "no -n"),
    "adaptive": (["img2img", *EDIT, "--sampler", "dpm-adaptive"], "adaptive sampler"),
    "up and down": (["img2img", *EDIT, "--sampler", "edm"], "descends"),
    "two into one": (["img2img", *EDIT, "{desk}/grey16.png", "--out", "x.png"], "give a folder"),
    "not a png": (["img2img", *EDIT, "--out", "x.jpg"], "written as PNG"),
    "crop of a small picture": (
        ["inpaint", "{home}/pets", "{desk}/small.png", "--mask", "{desk}/small.png", "--crop"],
        "no room",
    ),
    "no run": (["img2img", "{home}/nothing", "{desk}/grey.png"], "no such folder"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_1(
    what: str, home: Path, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((5, 5), 255, np.uint8)).save(desk / "small.png")
    words, expected = MISTAKES[what]
    filled = (w.replace("{home}", str(home)).replace("{desk}", str(desk)) for w in words)
    code, out, err = says(capsys, "edit", *filled)
    assert (code, out) == (1, [])
    assert err.startswith("error: ")
    assert expected in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_help_loads_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "PIL", "matplotlib", "rich")
    code = (
        "import sys; from sfumato import cli\n"
        f"for words in ([], *([c] for c in {[one.name for one in TASKS]!r})):\n"
        "    assert cli.run(['edit', *words, '--help']) == 0\n"
        f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stderr.strip() == "[]"
    assert all(f"Usage: sfumato edit {one.name} " in found.stdout for one in TASKS)


def test_help_of_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    for one in TASKS:
        code, lines, _ = says(capsys, "edit", one.name, "--help")
        assert code == 0
        assert any("--ensemble" in line for line in lines) == ("ensemble" not in one.without)
    assert len({one.name for one in TASKS}) == len(TASKS)
    assert says(capsys, "edit")[0] == 2
