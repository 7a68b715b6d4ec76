"""What diffusers opens of a run folder: the network's settings, the scheduler, and all of it where it can.

RUN/unet/config.json or RUN/transformer/config.json
RUN/scheduler/scheduler_config.json                 where diffusers can say the process
RUN/model_index.json                                only where DDPMPipeline can open all of it
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfumato.card import Card
from sfumato.files import write_json
from sfumato.interop.diffusers import VERSION, config_to_diffusers, why_not_diffusers
from sfumato.interop.scheduler import scheduler_to_diffusers
from sfumato.networks import DiTConfig
from sfumato.records.predictions import Steps, make_prediction
from sfumato.records.schedules import make_schedule
from sfumato.tables import Table

INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"


def network_folder(card: Card) -> str:
    """Where diffusers looks for this kind of network."""
    return "transformer" if isinstance(card.config(), DiTConfig) else "unet"


def why_no_pipeline(card: Card) -> str | None:
    """Why diffusers cannot open the whole folder as a pipeline; None where it can."""
    config = card.config()
    reason = why_not_diffusers(config)
    if reason is not None:
        return reason
    if isinstance(config, DiTConfig):
        return (
            "diffusers' pipeline for DiTTransformer2DModel needs an autoencoder, and this model works "
            "on pixels."
        )
    if card.self_conditioned:
        return "diffusers' pipelines do not show a model its last estimate (self-conditioning)."
    if card.picture is not None:
        return "diffusers has no pipeline that shows a model another picture beside the noise."
    if config.middle == "cross":
        lacks = "a text encoder" if card.text is None else "an autoencoder, and this model works on pixels"
        return f"diffusers' pipelines for UNet2DConditionModel need {lacks}."
    if card.classes is not None:
        return (
            "diffusers has no pipeline for classes: open it with UNet2DModel.from_pretrained(RUN, "
            "subfolder='unet')."
        )
    if _scheduler(card) is None:
        return (
            "diffusers' DDPMScheduler cannot express the schedule, the prediction or the range of the images."
        )
    return None


def _scheduler(card: Card) -> dict[str, Any] | None:
    """The scheduler's settings, if the network is asked as diffusers asks it: x as it is, by the step's
    number."""
    schedule = make_schedule(card.schedule)
    image = card.image
    told = isinstance(schedule, Table) and card.label == Steps(steps=schedule.steps)
    if not told or card.data_std is not None or image.low != -image.high:
        return None
    clip = image.high if card.clip else None
    return scheduler_to_diffusers(
        schedule, make_prediction(card.prediction), clip=clip, learned_variance=card.learned_variance
    )


def write_settings(folder: Path, card: Card) -> None:
    """Writes everything that diffusers reads but the weights. Raises RunError if the disk refuses."""
    home = folder / network_folder(card)
    home.mkdir(parents=True, exist_ok=True)
    config = config_to_diffusers(card.config())
    write_json(home / "config.json", card.network.settings if config is None else config)
    scheduler = _scheduler(card)
    if scheduler is not None:
        (folder / SCHEDULER).parent.mkdir(exist_ok=True)
        write_json(folder / SCHEDULER, scheduler)
    if why_no_pipeline(card) is None:
        parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
        write_json(folder / INDEX, {"_class_name": "DDPMPipeline", "_diffusers_version": VERSION, **parts})
