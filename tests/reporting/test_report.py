"""The report: whole without a network, everything from outside escaped, made of what is stored alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from corpora import small
from reporting import records
from sfumato.card import TrainingSettings
from sfumato.errors import RunError, SettingsError
from sfumato.evaluation.sets import of_tensor
from sfumato.files import write_json
from sfumato.noise import Noise
from sfumato.reporting.chart import Line, chart, pieces, powers, ticks
from sfumato.reporting.energy import duration, estimate
from sfumato.reporting.page import options
from sfumato.reporting.picked import pick
from sfumato.reporting.report import report, write_report
from sfumato.reporting.stored import Stored, add_records, read_records, stored

EVIL = """<script>alert('x')</script>"onload="x{{ 7 * 7 }}"""
VOID = {"meta", "img", "link", "br", "rect", "line", "circle", "polyline", "polygon", "input"}


class Page(HTMLParser):
    """What a browser would make of a page: tags, attributes, text; that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


@pytest.fixture
def full(tmp_path: Path) -> Stored:
    """A run of which everything was measured, with names that are out to harm."""
    classes = ("cat", "dog", EVIL)
    groups = [records.record("kid", 0.1, 0.05, 0.15, group=name) for name in classes]
    run = records.run(tmp_path / "a<b>run", records.card(classes=classes))
    run.home.mkdir(parents=True)
    (run.path / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in run.log), "utf-8")
    noise = Noise((1,)).normal((24, 1, 8, 8), "x")[0].clamp(-1, 1)
    pick(of_tensor(noise, "some", [i % 3 for i in range(24)], classes), run.home, EVIL)
    add_records(run.home / "records.json", [*run.records, *groups])
    cover = records.coverage()
    cover["groups"][0]["groups"][2]["name"] = EVIL
    cover["notes"] = [EVIL]
    bits = {"value": 1.5, "error": 0.1}
    parts = {
        "novelty": records.novelty(True) | {"verdict": EVIL},
        "coverage": cover,
        "losses": records.losses() | {"reading": [EVIL]},
        "data": {
            "format": 1, "name": EVIL, "same": True, "sizes": {EVIL: 3}, "classes": dict.fromkeys(classes, 5),
            "captions": 2, "duplicates": 3, "bad": [EVIL], "notes": [EVIL],
        },
        "about": {"format": 1, "date": "2026-11-21", "licence": EVIL, "data_licence": EVIL, "watts": 65.0},
        "likelihood": {
            "about": [EVIL],
            "bound": {
                "process": {"kind": "steps", "steps": 1000, "variance": EVIL, "terms": 50},
                "bits_per_dimension": bits, "prior": bits, "steps": bits, "decoder": bits,
            },
            "flow": [
                {"dequantise": "noise", "bits_per_dimension": bits, "gap": bits}
            ],
        },
        "rate-distortion": {
            "curve": [{"rate": {"value": r}, "distortion": {"value": 9 - r}} for r in range(5)]
        },
    }  # fmt: skip
    for name, part in parts.items():
        write_json(run.home / f"{name}.json", part)
    return stored(run.path, run.home, run.card)


def test_every_string_from_outside_stays_text(full: Stored) -> None:
    page = Page(report(full))
    names = {tag for tag, _ in page.tags}
    assert "script" not in names
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "49" not in re.findall(r"x(\d\d)", page.text)
    assert page.text.count("alert('x')") >= 12
    assert "<b>" in page.text  # the run's own name, as text


def test_options_stand_out_and_their_text_stays_text() -> None:
    shown = str(options("Train with --hold-out 0.05. Or <b> --flip."))
    assert shown == "Train with <code>--hold-out 0.05</code>. Or &lt;b&gt; <code>--flip</code>."


def test_nothing_is_fetched(full: Stored) -> None:
    text = report(full)
    page = Page(text)
    for tag, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:image/", "#")), (tag, value)
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_it_can_be_read_without_eyes(full: Stored) -> None:
    page = Page(report(full))
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    charts = [attrs for tag, attrs in page.tags if tag == "svg" and attrs.get("role") == "img"]
    assert len(charts) == 3
    assert all(attrs["aria-label"] for attrs in charts)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")
    anchors = {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    assert anchors <= {f"#{attrs['id']}" for _, attrs in page.tags if "id" in attrs}


def test_the_same_folder_gives_the_same_page(full: Stored) -> None:
    path = write_report(full)
    first = path.read_bytes()
    assert write_report(stored(full.path, full.home, full.card)).read_bytes() == first


def test_every_part_is_shown_and_none_is_needed(full: Stored) -> None:
    page = Page(report(full))
    for words in ("1.5000", "KID-lite0", "100 kinds", "At 65 W", "cat", "Provenance", "2026-11-21"):
        assert words in page.text
    bare = Stored(full.path, full.home / "nowhere", full.card)
    words = Page(report(bare)).text
    assert "Not measured yet" in words
    assert "KID-lite0" not in words


def test_samples_are_rows_of_classes(full: Stored) -> None:
    images = [
        attrs for tag, attrs in Page(report(full)).tags if tag == "img" and "samples" in str(attrs["alt"])
    ]
    assert len(images) == 3
    assert f"class {EVIL}" in str(images[2]["alt"])


def test_records_are_added_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    one, other = records.record(), records.record(generated=1000)
    add_records(path, [one])
    add_records(path, [other, records.record(sha256="cd" * 32)])
    assert len(add_records(path, [records.record(value=0.016)])) == 3
    assert [r.value for r in read_records(path)] == [0.02, 0.02, 0.016]
    write_json(path, {"format": 1, "records": [{"value": 1}]})
    with pytest.raises(SettingsError, match="measure again"):
        read_records(path)
    write_json(path, {"format": 1})
    with pytest.raises(SettingsError, match="no list of records"):
        read_records(path)


def test_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run"):
        stored(tmp_path)


def test_energy_is_seconds_times_watts_and_says_its_doubt() -> None:
    found = estimate(3600, 100)
    assert (found.low, found.high) == (0.05, pytest.approx(0.15))
    assert "about 0.1 kWh" in " ".join(found.lines())
    assert "--watts" in " ".join(estimate(3600).lines())
    assert "15 Wh to 0.3 kWh" in " ".join(estimate(3600).lines())
    for watts in (0, -1.0, float("nan")):
        with pytest.raises(SettingsError, match="--watts"):
            estimate(1, watts)
    assert [duration(s) for s in (5.4, 360, 7260, 200_000)] == ["5 s", "6 min 0 s", "2 h 1 min", "2 days 7 h"]


def test_metrics_of_the_training_are_drawn(full: Stored) -> None:
    log = [{**one, "metrics/kid": 1.0 / (i + 1)} for i, one in enumerate(full.log)]
    words = [
        str(attrs.get("aria-label"))
        for tag, attrs in Page(report(replace(full, log=log))).tags
        if tag == "svg"
    ]
    assert any(text.startswith("kid against step. kid: from 1 to 0.25") for text in words)


def test_the_time_is_the_cards_else_the_logs(full: Stored) -> None:
    assert "Training took 6 min 0 s" in report(full)
    without = full.card.but(training=TrainingSettings())
    assert "Training took 4 s" in report(replace(full, card=without, log=records.log(1, 1, 1, 1)))


def test_charts_stand_where_their_numbers_are() -> None:
    drawn = chart([Line("one", [(0.0, 1.0), (10.0, 3.0)])], "x", "y", height=280)
    points = re.search(r'<polyline class="line c0" points="([^"]*)"', drawn)
    assert points is not None
    (x0, y0), (x1, y1) = (map(float, p.split(",")) for p in points[1].split())
    assert (x0, x1) == (58.0, 708.0)
    assert y0 > y1
    rows = re.findall(r'y1="([\d.]+)"[^>]*/><text[^>]*>([^<]*)<', drawn)
    heights = {float(label): float(y) for y, label in rows}
    assert y0 == pytest.approx(heights[1.0], abs=0.1)
    assert y1 == pytest.approx(heights[3.0], abs=0.1)
    assert chart([], "x", "y") == ""
    assert chart([Line("one", [(0.0, -1.0), (1.0, 0.0)])], "x", "y", log=True) == ""
    assert "&lt;b&gt;" in chart([Line("<b>", [(0.0, 1.0), (1.0, 2.0)])], "x", "y")


def test_ticks_are_round() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(-3.2, 4.4) == [-2, 0, 2, 4]
    assert powers(0.09, 1.2) == pytest.approx([0.1, 0.2, 0.5, 1.0])
    assert powers(1e-6, 1e6)[0] == 1e-6
    assert pieces([(float(i), float(i)) for i in range(1000)], 10) == [
        (49.5 + 100 * i,) * 2 for i in range(10)
    ]


def test_a_small_run_of_the_package_is_reported(tmp_path: Path) -> None:
    small.make(tmp_path / "run", small.card())
    assert "A U-Net with" in report(stored(tmp_path / "run"))
