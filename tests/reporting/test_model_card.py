"""The model card: read back by the ecosystem's own reader, and kind to what people wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from reporting import records
from sfumato.errors import SettingsError
from sfumato.files import write_json
from sfumato.reporting.front_matter import merged
from sfumato.reporting.model_card import plain, write_model_card
from sfumato.reporting.stored import Stored, stored

EVIL = "<script>alert(1)</script> | `code` [x](javascript:1) \n# head"


@pytest.fixture
def run(tmp_path: Path) -> Stored:
    home = tmp_path / "my-run"
    found = records.run(home, records.card(classes=("cat", EVIL.replace("\n", " "))))
    found.home.mkdir(parents=True)
    fid = records.record(
        "fid", 300.0, 290.0, 310.0, (40.0, 39.0, 41.0), settings={"k": 3, "kernel": "yes: [no]"}
    )
    said = [*found.records, fid, records.record(group="cat")]
    write_json(found.home / "records.json", {"format": 1, "records": [r.to_json() for r in said]})
    write_json(found.home / "about.json", {"licence": "apache-2.0", "data_licence": EVIL, "watts": 65.0})
    write_json(found.home / "data.json", {"name": "digits", "same": True})
    return stored(home, found.home, found.card)


def test_the_ecosystems_reader_finds_the_records(run: Stored) -> None:
    """Parity: huggingface_hub's ModelCard and EvalResult (a part of diffusers' installation)."""
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(write_model_card(run))
    assert card.data.library_name == "sfumato"
    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "unconditional-image-generation"
    assert card.data.datasets == ["digits"]
    assert set(card.data.tags) >= {"sfumato", "diffusion", "class-conditional"}
    assert card.data.model_name == "my-run"
    found = {one.metric_type: one for one in card.data.eval_results}
    assert set(found) == {"kid-lite0", "fd-lite0"}
    assert found["kid-lite0"].metric_value == run.records[0].value
    assert found["fd-lite0"].metric_args["low"] == 290.0
    assert found["fd-lite0"].metric_args["real_against_real"] == 40.0
    assert found["fd-lite0"].metric_args["kernel"] == "yes: [no]"
    assert found["kid-lite0"].dataset_name == "digits"


def test_what_people_wrote_survives(run: Stored) -> None:
    path = write_model_card(run)
    first = path.read_text("utf-8")
    mine = first.replace("# my-run", "# my-run", 1).replace("---\n#", "---\nlicense: mit\nauthor: me\n#", 1)
    path.write_text(mine + "\nMy own words.\n", "utf-8")
    again = write_model_card(run).read_text("utf-8")
    assert again.endswith("\nMy own words.\n")
    head = yaml.safe_load(again.split("---\n")[1])
    assert head["license"] == "mit"
    assert head["author"] == "me"
    assert head["library_name"] == "sfumato"
    assert write_model_card(run).read_text("utf-8") == again  # and nothing grows


def test_a_readme_without_marks_keeps_its_words_and_gains_ours(run: Stored) -> None:
    (run.path / "README.md").write_text(
        "---\ntags:\n- a\n- b\nmodel-index: old\n---\n# Mine\n\nWords.\n", "utf-8"
    )
    text = write_model_card(run).read_text("utf-8")
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["tags"] == ["a", "b"]
    assert head["model-index"][0]["name"] == "my-run"
    assert text.index("# Mine\n\nWords.") < text.index("# my-run")
    (run.path / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8"):
        write_model_card(run)


def test_hostile_text_is_shown_and_does_nothing(run: Stored) -> None:
    text = write_model_card(run).read_text("utf-8")
    body = text.split("---\n", 2)[2]
    assert "<script" not in body
    assert "\n# head" not in body
    assert plain(EVIL) == (
        "&lt;script&gt;alert(1)&lt;/script&gt; \\| \\`code\\` \\[x\\](javascript:1) # head"
    )


@pytest.mark.parametrize(
    "value", ["yes", "1e3", "- a", "a: b", "# no", "'\"", "é\u2028\u0085", "\x00\x1b", "null", ""]
)
def test_any_text_comes_back_as_text(value: str) -> None:
    head = {"key": value, "list": [value, {"a": value, "b": [value]}], "empty": [], "none": None, "n": 1.5}
    text = merged("", head, "body")
    assert yaml.safe_load(text.split("---\n")[1]) == head


def test_merging_is_settled_after_once() -> None:
    before = "---\n# a word\nlicense: mit\nnested:\n  a: 1\n\n  b: 2\n---\nintro\n"
    once = merged(before, {"license": "other", "tags": ["x"]}, "body")
    assert merged(once, {"license": "other", "tags": ["x"]}, "body") == once
    assert yaml.safe_load(once.split("---\n")[1]) == {
        "tags": ["x"],
        "license": "mit",
        "nested": {"a": 1, "b": 2},
    }
    assert "# a word" in once
