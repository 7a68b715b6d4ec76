"""Each recommendation follows from what was measured, and from nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reporting import records
from sfumato.reporting.advice import advice, verdict
from sfumato.reporting.stored import Stored
from sfumato.reporting.trend import overfit_since
from sfumato.tuning.kept import Entry


def kinds(run: Stored) -> dict[str, str]:
    return {one.rule: one.kind for one in advice(run)}


def said(run: Stored, rule: str) -> str:
    return " ".join(f"{one.says} {one.todo} {one.command}" for one in advice(run) if one.rule == rule)


def but(**parts: object) -> Stored:
    """The healthy run with other parts; None takes one away."""
    run = records.run()
    kept = {**run.parts, **{name.replace("_", "-"): part for name, part in parts.items()}}
    return replace(run, parts={name: part for name, part in kept.items() if part is not None})


def test_a_healthy_run_is_called_good_and_nothing_is_asked_of_it() -> None:
    run = records.run()
    assert set(kinds(run).values()) == {"good"}
    assert set(kinds(run)) == {"memorised", "quality", "overfit", "left-out"}
    assert verdict(run, advice(run)) == "Its pictures cannot be told from real ones by the figures below."


def test_pictures_that_can_be_told_from_real_ones() -> None:
    run = records.run(records=(records.record(value=0.02, low=0.015, high=0.025),))
    assert kinds(run)["quality"] == "warning"
    assert "0.0200 (0.0150 to 0.0250)" in said(run, "quality")
    assert verdict(run, advice(run)) == "Its pictures can still be told from real ones."


@pytest.mark.parametrize(
    ("metric", "value", "low", "high", "base", "reached"),
    [
        ("kid", 0.001, 0.0, 0.002, (0.0, -0.0005, 0.0005), True),
        ("kid", 0.001, 0.0006, 0.002, (0.0, -0.0005, 0.0005), False),
        ("recall", 0.6, 0.55, 0.65, (0.66, 0.64, 0.68), True),
        ("recall", 0.6, 0.55, 0.63, (0.66, 0.64, 0.68), False),
    ],
)
def test_reached_is_where_the_intervals_meet(
    metric: str, value: float, low: float, high: float, base: tuple[float, float, float], reached: bool
) -> None:
    assert records.record(metric, value, low, high, base).as_real is reached


def test_a_sampler_that_was_tuned_is_not_tuned_again() -> None:
    run = records.run(records=(records.record(),))
    assert "sfumato tune-sampler runs/some" in said(run, "quality")
    own = run.card.sampler
    entry = Entry(
        library="0.1.0", weights_sha256=records.HASH, before=own, after=own, guidance=None, found={}
    )  # fmt: skip
    assert "tune-sampler" not in said(replace(run, tuned=entry), "quality")


def test_kid_speaks_before_fid_and_the_newest_record_speaks() -> None:
    fid = records.record("fid", 300.0, 290.0, 310.0, (40.0, 39.0, 41.0))
    old, new = records.record(value=0.5, low=0.4, high=0.6), records.record(value=0.0, low=-0.001, high=0.001)
    assert kinds(records.run(records=(fid, old, new)))["quality"] == "good"
    assert kinds(records.run(records=(fid,)))["quality"] == "warning"


def test_without_a_baseline_the_distance_is_no_judgement() -> None:
    run = records.run(records=(records.record(base=None),))
    assert kinds(run)["quality"] == "note"
    assert "nothing to hold" in verdict(run, advice(run))


def test_low_recall_asks_for_variety_and_guidance_is_named_where_it_is_used() -> None:
    low = records.record("recall", 0.3, 0.25, 0.35, (0.7, 0.68, 0.72))
    plain, guided = (
        records.run(said=records.card(guidance=g), records=(*records.run().records, low)) for g in (1.0, 3.0)
    )
    assert kinds(plain)["recall"] == "warning"
    assert "Longer training" in said(plain, "recall")
    assert "Lower the guidance" in said(guided, "recall")
    fine = records.record("precision", 0.7, 0.65, 0.75, (0.7, 0.68, 0.72))
    assert "precision" not in kinds(records.run(records=(fine,)))


def test_a_sure_gap_is_an_overfit_and_an_unsure_or_small_one_is_not() -> None:
    assert kinds(but(losses=records.losses(1.3, 0.02)))["overfit"] == "warning"
    assert kinds(but(losses=records.losses(1.3, 0.2)))["overfit"] == "good"
    assert kinds(but(losses=records.losses(1.02, 0.001)))["overfit"] == "good"


def test_overfit_since_the_step_of_the_least_held_out_loss() -> None:
    run = replace(but(losses=None), log=records.log(0.3, 0.2, 0.22, 0.25, 0.3))
    assert overfit_since(run) == (200, 0.2, 0.3)
    assert "least at step 200 (0.2) and has risen to 0.3" in said(run, "overfit")
    assert "overfits" in verdict(run, advice(run))
    assert overfit_since(replace(run, log=records.log(0.3, 0.2, 0.199, 0.2, 0.2005))) is None


def test_a_loss_that_still_falls_asks_for_more_steps() -> None:
    run = replace(records.run(), log=records.log(0.3, 0.2, 0.15, 0.1))
    assert kinds(run)["unfinished"] == "note"
    assert "33.3%" in said(run, "unfinished")
    assert "--steps 800" in said(run, "unfinished")
    assert "unfinished" not in kinds(replace(run, log=records.log(0.3, 0.2, 0.1, 0.0995)))
    assert "unfinished" not in kinds(replace(run, log=records.log(0.3, 0.1, 0.2, 0.15)))


def test_a_memorised_model_is_called_one_whatever_its_distance() -> None:
    run = but(novelty=records.novelty(True))
    assert kinds(run)["memorised"] == "warning"
    assert verdict(run, advice(run)) == "It repeats pictures that it was trained on."
    assert advice(run)[0].kind == "warning"


def test_losses_of_a_model_that_knows_by_heart() -> None:
    assert kinds(but(losses=records.losses(by_heart=0.8)))["by-heart"] == "warning"
    assert "by-heart" not in kinds(but(losses=records.losses(by_heart=0.5)))


def test_classes_and_kinds_that_are_left_out_are_named() -> None:
    run = but(coverage=records.coverage(("dog", "ox")))
    assert kinds(run)["left-out"] == "warning"
    assert "dog, ox" in said(run, "left-out")
    assert "--balance 0" in said(run, "left-out")
    assert "asked for of" in said(but(coverage=records.coverage(("ox",), "what was asked for")), "left-out")
    column = records.coverage(("ox",))
    column["groups"][0]["name"] = "style"
    assert "By style" in said(but(coverage=column), "left-out")
    assert "--balance" not in said(but(coverage=column), "left-out")
    assert "too few of 3, which are 6.0%" in said(but(coverage=records.coverage(modes=3)), "left-out")
    assert kinds(but(coverage=records.coverage(modes=None)))["left-out"] == "good"
    few = records.coverage()
    few["modes"] |= {"reached": 80}
    assert "it makes 80; as many training pictures reach 99.1" in said(but(coverage=few), "left-out")


def test_little_data_and_none_held_out_are_told() -> None:
    whole = records.run(said=records.card(held_out=0))
    assert kinds(whole)["held-out"] == "warning"
    unseen = replace(whole, parts={name: part for name, part in whole.parts.items() if name != "novelty"})
    assert "unmeasured" not in kinds(unseen)
    assert kinds(records.run(said=records.card(images=200)))["few"] == "note"


def test_warnings_of_records_are_told_once_with_their_metrics() -> None:
    two = [
        records.record(name, 1.0, 0.9, 1.1, (1.0, 0.9, 1.1), warnings=("few pictures",))
        for name in ("fid", "sfid")
    ]
    run = records.run(records=(*records.run().records, *two))
    assert [one.says for one in advice(run) if one.rule == "record"] == ["FD-lite0, sFD-lite0: few pictures."]


def test_what_is_of_other_weights_is_told() -> None:
    newest = {"format": 1, "weights_sha256": "a", "images_seen": 50_000}
    assert "stale" not in kinds(but(about=newest, novelty=records.novelty(False) | {"weights_sha256": "a"}))
    old = but(about=newest, novelty=records.novelty(False) | {"weights_sha256": "b"})
    assert "Of other weights than the newest figures: novelty." in said(old, "stale")
    assert "trained further" in said(but(about=newest | {"images_seen": 49_999}), "stale")


def test_what_was_not_measured_is_asked_for_and_not_guessed() -> None:
    run = replace(but(novelty=None, coverage=None, losses=None), records=(), log=())
    assert kinds(run) == {"unmeasured": "note"}
    assert "whether it copies" in said(run, "unmeasured")
    assert "how far its pictures are" in said(run, "unmeasured")
    assert verdict(run, advice(run)) == "How good its pictures are has not been measured yet."
