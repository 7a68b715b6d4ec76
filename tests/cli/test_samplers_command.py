"""`sfumato samplers`: a row for each sampler, as text and as JSON."""

from __future__ import annotations

import json

import pytest

from sfumato import cli
from sfumato.samplers import KNOWN


@pytest.mark.slow
def test_the_table_has_a_row_for_every_sampler(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["samplers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(KNOWN) + 1]] == list(KNOWN)
    assert lines[0].split()[:4] == ["name", "order", "evaluations", "noise"]
    assert cli.run(["samplers", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(KNOWN)
    heun, ddpm = rows["heun"], rows["ddpm"]
    assert (heun["order"], heun["evaluations"], heun["noise"]) == ("2", "2", "-")
    assert (ddpm["order"], ddpm["evaluations"], ddpm["noise"]) == ("1", "1", "new")
    assert "DPMSolverMultistepScheduler" in rows["dpmpp-2m"]["also called"]
