"""A whole run as one frozen value, with defaults that follow from the data, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from sfumato.bound import Bins
from sfumato.card import Card, DataSettings, ImageSettings
from sfumato.conditions.schema import Conditions
from sfumato.data.augment import Augment
from sfumato.data.dataset import DataSet
from sfumato.errors import SettingsError
from sfumato.networks import MODELS, SIZES, Config, preset, transformer_preset
from sfumato.networks.patches import PatchDiscriminator
from sfumato.noise import seeded
from sfumato.records.conditions import AnyText, OwnText, describe_attributes, describe_shown
from sfumato.records.schedules import make_schedule
from sfumato.schedules import Schedule
from sfumato.training import unsaid
from sfumato.training.adversarial import Adversarial
from sfumato.training.caption_loss import CaptionLoss
from sfumato.training.companion import Companion
from sfumato.training.idle import check_idle
from sfumato.training.learned_schedule import LearnedSchedule
from sfumato.training.objectives import Objective, Sum
from sfumato.training.process import TABLES, WHOLE, Process
from sfumato.training.settings import LENGTH, TrainSettings
from sfumato.training.told import Told, Wanted, settled, told


@dataclass(frozen=True)
class RunSettings:
    """Everything that decides a run, beside its data: how it trains, what its model is, its diffusion process
    (`process.Process`), and what it is told (`told.Wanted`). On the way it is judged by `metrics` of
    `metric_samples` pictures, as an `extractor` sees them. `reasons` are for people and decide nothing."""

    train: TrainSettings
    model: str = "tiny"
    schedule: str = "cosine"
    prediction: str = "v"
    shift: float | int = 1.0
    zero_snr: bool = False
    learned_variance: bool = False
    self_conditioning: bool = False
    adversarial: float | int = 0.0
    caption_loss: float | int = 1.0
    dropout: float = 0.0
    skips: bool = True
    checkpointing: bool = False
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    balance: float = 1.0
    conditioning: str = "add"
    class_input: str = "embedding"
    classes: bool = True
    text: str = "none"
    pooled: bool = False
    attributes: tuple[str, ...] = ()
    picture: str = ""
    task: str = ""
    metrics: tuple[str, ...] = ()
    extractor: str = "lite0"
    metric_samples: int = unsaid.SAMPLES
    reasons: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        self._check_network()
        if not 0 <= self.dropout < 1 or not 0 <= self.balance <= 1:
            raise SettingsError("--dropout must be in [0, 1) and --balance in [0, 1]")
        _ = self.process
        self._check_learned()
        self._check_metrics()

    def _check_network(self) -> None:
        """Raises SettingsError for a network that is not known, and for what a transformer does not have."""
        if self.model not in MODELS:
            raise SettingsError(f"--model is one of {', '.join(MODELS)}, not {self.model!r}")
        if self.model in SIZES:
            return
        has_not = {
            "--text": self.text != "none",
            "--attribute": bool(self.attributes),
            "--conditioning": self.conditioning != "add",
            "--class-input": self.class_input != "embedding",
            "--no-skips": not self.skips,
        }
        for option, asked in has_not.items():
            if asked:
                raise SettingsError(
                    f"{option} is of U-Nets, and --model {self.model} is a transformer, which is told a "
                    f"class alone: leave it out, or choose {', '.join(SIZES)}"
                )

    def _check_metrics(self) -> None:
        """Raises SettingsError for looks at nothing, and for a best that is not looked for."""
        by, every = self.train.best_by, self.train.metrics_every
        if bool(self.metrics) != bool(every):
            raise SettingsError(
                "--metrics says what is looked at, --metrics-every after how many images: give both or none"
            )
        if not self.metrics and (self.extractor, self.metric_samples) != ("lite0", unsaid.SAMPLES):
            raise SettingsError(
                "--features and --metric-samples are of --metrics: add that, or leave them out"
            )
        if by not in ("loss", *self.metrics):
            raise SettingsError(f"--best-by is one of {', '.join(('loss', *self.metrics))}, not {by!r}")
        if self.metric_samples < 2:
            raise SettingsError(f"--metric-samples must be at least 2, not {self.metric_samples}")

    def _check_learned(self) -> None:
        """Raises SettingsError where what is to be learned is not taught, or what is taught not there."""
        train = self.train
        if self.learned_variance and not self.process.is_table:
            raise SettingsError(
                f"--learned-variance is about the steps of a table: --schedule {', '.join(TABLES)}, not "
                f"{self.schedule}"
            )
        if self.learned_variance and not train.bound and train.weight != "bound":
            raise SettingsError("--learned-variance is taught by the bound: --bound 0.001, or --weight bound")
        if not self.adversarial >= 0 or (self.adversarial and train.weight == "bound"):
            raise SettingsError("--adversarial is a share of 0 or more, beside any --weight but bound")
        if not self.caption_loss >= 0:
            raise SettingsError(f"--caption-loss is a share of 0 or more, not {self.caption_loss}")
        if self.self_conditioning and self.prediction in ("epsilon", "score"):
            raise SettingsError(
                f"--self-conditioning shows the model its x0, which {self.prediction} cannot tell near pure "
                "noise: --prediction v, x0 or flow"
            )
        if train.bound and not self.learned_variance:
            raise SettingsError("--bound teaches a learned variance alone: add --learned-variance")
        if self.schedule == "learned" and train.weight != "bound":
            raise SettingsError(f"--schedule learned is trained by --weight bound, not {train.weight}")
        if self.schedule == "learned" and train.levels not in ("stratified", "uniform"):
            raise SettingsError(
                f"--schedule learned decides itself where to train: leave out --levels {train.levels}"
            )
        if self.schedule in WHOLE and train.weight == "bound":
            raise SettingsError(
                f"--schedule {self.schedule} has no bound, because it begins in clean data: choose "
                f"{', '.join(TABLES)}, log-linear or learned"
            )

    @property
    def wanted(self) -> Wanted:
        """What the model is to be told."""
        return Wanted(**{f.name: getattr(self, f.name) for f in fields(Wanted)})

    @property
    def augment(self) -> Augment:
        return Augment(self.flip, self.brightness, self.contrast, self.saturation)

    @property
    def process(self) -> Process:
        """The schedule and what the network predicts on it."""
        return Process(self.schedule, self.prediction, self.shift, self.zero_snr, self.train.data_std)

    def curve(self) -> Schedule:
        """The schedule of the run."""
        return self.process.curve()

    def objective(self, card: Card) -> Objective:
        """The loss of this run on the pictures of its card."""
        image = card.image
        bins = Bins(2**image.bits, image.low, image.high)
        loss = self.train.objective(make_schedule(card.schedule), bins)
        if not self.adversarial:
            return loss
        with seeded(self.train.seed, "discriminator"):
            judge = PatchDiscriminator(image.channels, (image.height, image.width))
        whole = loss if isinstance(loss, Sum) else Sum(((1.0, loss),))
        return whole + float(self.adversarial) * Adversarial(judge)

    def card(self, data: DataSet, conditions: Told | None = None) -> Card:
        """The card of this run's model on this data, from which its `conditions` follow too."""
        channels, height, width = data.shape
        known = told(self.wanted, data) if conditions is None else conditions
        can, text = known.conditions, known.text(self.model)
        names = None if can.classes is None else can.classes.names
        picture = None if can.shown is None else describe_shown(can.shown)
        process = self.process
        network = self._network(data.shape, can, 0 if picture is None else picture.channels, text)
        bits = 8 * data.pixels.dtype.itemsize
        return Card.of(
            network=network,
            schedule=process.curve(),
            prediction=process.kind(),
            label=process.label(),
            data_std=process.input_std(),
            learned_variance=self.learned_variance,
            self_conditioned=self.self_conditioning,
            image=ImageSettings(channels=channels, height=height, width=width, bits=16 if bits == 16 else 8),
            classes=names,
            attributes=describe_attributes(can.attributes),
            text=text,
            picture=picture,
            clip=True,
            sampler=unsaid.sampler({"learned_variance": self.learned_variance}),
            data=DataSettings(fingerprint=data.fingerprint, images=len(data.train), held_out=len(data.held)),
        )

    def _network(
        self, shape: tuple[int, int, int], can: Conditions, picture: int, text: AnyText | None
    ) -> Config:
        """The network for pictures of this shape that is told all this."""
        common: dict[str, Any] = {
            "channels": shape[0],
            "image_size": shape[1:],
            "classes": None if can.classes is None else len(can.classes.names),
            "learned_variance": self.learned_variance,
            "self_conditioned": self.self_conditioning,
            "dropout": self.dropout,
            "picture": picture,
            "checkpointing": self.checkpointing,
        }
        if self.model not in SIZES:
            return transformer_preset(self.model, **common)
        return preset(
            self.model,
            conditioning=self.conditioning,
            class_input=self.class_input,
            vector=can.attributes.width or None,
            context_dim=None if text is None else text.width,
            skips=self.skips,
            **common,
        )

    def companions(self, card: Card) -> tuple[Companion, ...]:
        """What learns beside the model of this card: a learned schedule, a text encoder's own lesson."""
        image, out = card.image, list[Companion]()
        if self.schedule == "learned":
            out.append(LearnedSchedule(Bins(2**image.bits, image.low, image.high)))
        if isinstance(card.text, OwnText) and self.caption_loss:
            out.append(CaptionLoss(card.text.width, image.shape, self.caption_loss, self.train.seed))
        return tuple(out)

    def to_json(self) -> dict[str, Any]:
        """Everything but the reasons."""
        out = {name: value for name, value in asdict(self).items() if name != "reasons"}
        out["schedule"] = self.process.said
        lists = {"attributes": list(self.attributes), "metrics": list(self.metrics)}
        return out | lists | {"train": self.train.to_json()}

    def differences(self, before: Mapping[str, Any]) -> list[str]:
        """What differs from settings that were saved, for people: "batch (64, now 32)". What was not a
        setting then was its default."""
        now, plain = self.to_json(), RunSettings(TrainSettings(steps=1)).to_json()
        pairs = [(n, before.get(n, plain[n]), v) for n, v in now.items() if n != "train"]
        out = [f"{name} ({was}, now {value})" for name, was, value in pairs if was != value]
        past = before.get("train")
        if not isinstance(past, Mapping):
            return out
        known = plain["train"] | dict.fromkeys(LENGTH) | {n: past[n] for n in past if n in plain["train"]}
        return out + TrainSettings.from_json(known).differences(self.train)


def pixels(
    data: DataSet,
    *,
    device: str = "cpu",
    model: str | None = None,
    train: Mapping[str, Any] | None = None,
    dropout: float | None = None,
    text: str = "auto",
    attributes: Sequence[str] = (),
    **others: Any,
) -> RunSettings:
    """A diffusion model on pixels for this data: `RunSettings` with all that was not said filled in.

    `train` holds the settings of `TrainSettings` that were said, `others` those of `RunSettings`; unknown
    ones are refused by name. `text` "auto" is "own" where at least half of the pictures have a caption.
    Raises SettingsError.
    """
    said = dict(train or {})
    reasons: list[str] = []
    images, (channels, height, width) = len(data), data.shape
    known = set(RunSettings.__dataclass_fields__) - {"train", "reasons"}
    for name in others:
        if name not in known:
            raise SettingsError(f"a run has no setting {name!r}")
    if model is None:
        model = "tiny" if device == "cpu" else "base"
        reasons.append(
            f"model {model}: what {'a CPU' if device == 'cpu' else 'a GPU'} trains in reasonable time"
        )
    if model not in MODELS:
        raise SettingsError(f"--model is one of {', '.join(MODELS)}, not {model!r}")
    if all(said.get(name) is None for name in ("steps", "images", "minutes")):
        said["minutes"] = 20 if device == "cpu" else 120
        reasons.append(f"{said['minutes']} minutes: no length was given (--minutes, --steps or --images)")
    reasons += unsaid.pace(said, model, images)
    others, why = unsaid.placed(others, height, width)
    reasons += why
    reasons += unsaid.loss(said, others)
    if text == "auto" and model not in SIZES:
        text = "none"
        if any(data.captions or ()):
            reasons.append(f"text none: {model} is a transformer, which is told a class alone")
    told_of, why = settled(data, text, attributes, others)
    reasons += why
    if not told_of.anything(data):
        said["drop"] = 0.0
    if dropout is None:
        dropout = 0.1 if images < 5000 else 0.0
        if dropout:
            reasons.append(f"dropout {dropout}: {images} pictures are few")
    reasons += unsaid.looks(said, others, len(data.held) > 0)
    others = {**others, **vars(told_of)}
    settings = RunSettings(TrainSettings.from_json(said), model=model, dropout=dropout, **others)
    check_idle(
        train or {},
        settings.train,
        told=told_of.anything(data),
        classes=settings.class_input == "embedding" or (data.classes > 0 and settings.classes),
        colours=settings.saturation == 0 or channels >= 3,
        captions=settings.text == "own" or "caption_loss" not in others,
    )
    size = f"{width} x {height}, {channels} channel{'s' if channels > 1 else ''}"
    reasons += unsaid.end(settings.process)
    shown = data.classes and settings.classes
    about = f"{images} pictures of {size}" + (f", {data.classes} classes" if shown else "")
    return replace(settings, reasons=(about, *reasons))
