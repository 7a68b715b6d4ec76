"""The blind page shows pictures and tells nothing; its key tells the rest. Driven in a browser, if any."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from corpora import small
from sfumato import cli
from sfumato.errors import SettingsError
from sfumato.files import read_json
from sfumato.reporting.blind import Blind, Pair, blind
from sfumato.reporting.votes import Ballot, count

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pairs(n: int = 20) -> list[Pair]:
    """A's pictures are dark, B's bright."""
    ramp = torch.linspace(-0.2, 0.2, 64).reshape(1, 8, 8)
    return [Pair(ramp - 0.5 + i / 200, ramp + 0.5 + i / 200, f"wish {i}") for i in range(n)]


def said(page: str) -> dict[str, Any]:
    text = re.search(r'id="said">(.*?)</script>', page, re.DOTALL)
    assert text is not None
    return json.loads(text[1])


def picture(uri: str) -> np.ndarray:
    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def answers(made: Blind, prefer: str) -> dict[str, str]:
    """Of a voter who prefers dark or bright pictures, and sees which of two is broken."""
    out: dict[str, str] = {}
    for one in said(made.page)["pairs"]:
        left, right = picture(one["left"]).mean(), picture(one["right"]).mean()
        if one["pair"] in made.key.checks:
            out[one["pair"]] = made.key.checks[one["pair"]]
        else:
            out[one["pair"]] = "left" if (left < right) == (prefer == "dark") else "right"
    return out


@pytest.mark.parametrize(("prefer", "share"), [("dark", 1.0), ("bright", 0.0)])
def test_who_prefers_dark_pictures_prefers_a(prefer: str, share: float) -> None:
    made = blind(pairs(), ("x", "y"), seed=3, checks=4)
    found = count(made.key, [Ballot("ann", made.key.page, answers(made, prefer))])
    assert found.share == share
    assert sum(found.pairs) == 20
    assert found.voters[0].right == found.voters[0].checks == 4


def test_sides_and_order_are_shuffled_by_the_seed() -> None:
    made = [blind(pairs(200), ("x", "y"), seed=seed) for seed in (1, 1, 2)]
    assert made[0].page == made[1].page != made[2].page
    left = sum(side == "a" for side in made[0].key.sides.values())
    assert 75 <= left <= 125  # 100 +- 3.5 standard deviations
    order = [one["asked"] for one in said(made[0].page)["pairs"]]
    assert order != sorted(order, key=lambda asked: int(asked.split()[1]))


def test_a_check_is_a_picture_beside_its_own_pieces() -> None:
    made = blind(pairs(), ("x", "y"), checks=5)
    shown = {one["pair"]: one for one in said(made.page)["pairs"]}
    assert set(made.key.checks) < set(shown)
    for pair, side in made.key.checks.items():
        whole, broken = (picture(shown[pair][s]) for s in (side, "right" if side == "left" else "left"))
        assert sorted(whole.ravel().tolist()) == sorted(broken.ravel().tolist())
        assert (np.diff(whole.astype(int), axis=1) >= 0).all()  # the ramp itself
        assert not (np.diff(broken.astype(int), axis=1) >= 0).all()
    places = [i for i, one in enumerate(said(made.page)["pairs"]) if one["pair"] in made.key.checks]
    assert min(b - a for a, b in pairwise(places)) > 1  # spread over the page


def test_the_page_tells_no_names_and_holds_no_text_in_pictures() -> None:
    made = blind(pairs(), ("secret-run-one", "secret-run-two"), checks=2)
    assert "secret" not in made.page
    assert "secret-run-one" in json.dumps(made.to_json())
    for one in said(made.page)["pairs"]:
        assert set(one) == {"pair", "left", "right", "asked"}
        data = base64.b64decode(one["left"].partition(",")[2])
        assert b"tEXt" not in data
        assert b"iTXt" not in data


def test_wishes_are_hostile_and_stay_text() -> None:
    evil = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(1)>"
    one = pairs(1)[0]
    made = blind([Pair(one.a, one.b, evil)], ("x", "y"), question=evil)
    assert made.page.count("<script") == 2  # the pairs, and the page's own
    assert "<img src=x" not in made.page
    assert said(made.page)["pairs"][0]["asked"] == evil


def test_nothing_is_fetched_and_only_the_pages_own_script_may_run() -> None:
    page = blind(pairs(2), ("x", "y")).page
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?!data:)[a-z]*:?//""", page)
    assert "default-src 'none'" in page
    assert re.search(r"script-src (?:'|&#39;)sha256-[A-Za-z0-9+/=]{44}", page)


def test_wrong_numbers_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingsError, match="from 1 to"):
        blind([], ("x", "y"))
    with pytest.raises(SettingsError, match="no more checks than pairs"):
        blind(pairs(2), ("x", "y"), checks=3)
    tiny = torch.zeros(1, 2, 2)
    with pytest.raises(SettingsError, match="too small for checks"):
        blind([Pair(tiny, tiny)], ("x", "y"), checks=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("runs")
    small.make(home / "a", small.card(classes=("cat", "dog", "ox")), seed=1)
    small.make(home / "b", small.card(classes=("ox", "cat", "eel")), seed=2)
    for i in range(6):
        (home / "real").mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(home / "real" / f"{i}.png")
    return home


def test_two_runs_are_asked_for_the_same(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = runs / "page.html"
    words = ["blind", runs / "a", runs / "b", "-n", 5, "--steps", 2, "--out", out, "--device", "cpu"]
    assert cli.run([str(word) for word in words]) == 0
    key: Any = read_json(runs / "page.key.json")
    assert {one["asked"] for one in key["pairs"].values()} == {"cat", "ox"}  # what both know
    assert all(one["a"]["seed"] == one["b"]["seed"] for one in key["pairs"].values())
    assert cli.run([str(word) for word in words]) == 1
    assert "votes may still need this key" in capsys.readouterr().err
    words[2], words[-3] = runs / "real", runs / "other.html"
    assert cli.run([str(word) for word in words]) == 0
    words[4], words[-3] = 7, runs / "third.html"
    assert cli.run([str(word) for word in words]) == 1
    assert "6 pictures for 7 pairs" in capsys.readouterr().err
    words[1] = runs / "real"
    assert cli.run([str(word) for word in words]) == 1
    assert "pictures already: leave out --steps" in capsys.readouterr().err


def _chromium(page: Path, person: str = "one") -> str:
    """The page's text after its scripts ran, in the browser of this person."""
    words = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000"]
    words += [f"--user-data-dir={page.parent / person}", "--dump-dom", page.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=True)
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_keys_vote_and_the_file_says_so(tmp_path: Path) -> None:
    """A script of ours presses the keys as a person would, and reads what would be saved."""
    made = blind(pairs(3), ("x", "y"), seed=1)
    script = """
    <script>
      const press = (key) => dispatchEvent(new KeyboardEvent("keydown", { key }));
      let saved;
      URL.createObjectURL = (blob) => { saved = blob; return "#"; };
      press("ArrowLeft"); press("ArrowDown"); press("ArrowUp"); press("ArrowRight"); press("ArrowDown");
      document.getElementById("voter").value = "ann & bob";
      document.getElementById("voter").dispatchEvent(new Event("input"));
      document.getElementById("save").click();
      saved.text().then((text) => { document.title = btoa(text); });
    </script>"""
    page = tmp_path / "page.html"
    free = re.sub(r"<meta http-equiv[^>]*>", "", made.page).replace("</body>", script + "</body>")
    page.write_text(free, "utf-8")
    dom = _chromium(page)
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    votes = json.loads(base64.b64decode(title[1]))
    assert [one["answer"] for one in votes["votes"]] == ["left", "right", "tie"]
    assert [one["pair"] for one in votes["votes"]] == [one["pair"] for one in said(made.page)["pairs"]]
    assert votes["voter"] == "ann & bob"
    assert 'id="done"' in dom
    assert re.search(r'<main id="vote" hidden', dom)
    page.write_text(made.page, "utf-8")
    # the page as it is, under its own policy: progress is kept, and another person's browser begins anew
    assert '<span id="count">3 of 3</span>' in _chromium(page)
    assert '<span id="count">0 of 3</span>' in _chromium(page, "another")
