"""Whole runs in diffusers' pipelines, and diffusers' folders here: the same pictures from the same noise."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato import plans
from sfumato.assembled import build
from sfumato.card import Card, ImageSettings
from sfumato.errors import RunError, SfumatoError
from sfumato.model import LogSigma, Steps
from sfumato.networks import DiTConfig, UNetConfig
from sfumato.noise import Noise
from sfumato.predictions import Clean, Epsilon, Flow, Prediction, V
from sfumato.runs import Run, load, save
from sfumato.samplers import Sampler
from sfumato.schedules import Cosine, RectifiedFlow
from sfumato.solvers.multistep import Multistep
from sfumato.tables import Table

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers")
    import diffusers.pipelines.ddim.pipeline_ddim as ddim_module
    import diffusers.pipelines.ddpm.pipeline_ddpm as ddpm_module
    import diffusers.schedulers.scheduling_ddpm as scheduling_module

SHAPE = (3, 8, 8)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    diffusers.utils.logging.disable_progress_bar()
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def network(**more: Any) -> UNetConfig:
    values: dict[str, Any] = {
        "in_channels": 3,
        "out_channels": 3,
        "channels": (16, 32),
        "layers": 1,
        "groups": 8,
        "head_channels": 16,
        "attention": ("none", "self"),
        "image_size": (8, 8),
        "zero_init": False,
    }
    return UNetConfig(**{**values, **more})


def card(table: Table, prediction: Prediction, clip: bool, **more: Any) -> Card:
    return Card.of(
        network=more.pop("network", None) or network(),
        schedule=table,
        prediction=prediction,
        label=Steps(table.steps),
        image=ImageSettings(channels=3, height=8, width=8),
        clip=clip,
        **more,
    )


PROCESSES: dict[str, tuple[Table, Prediction, bool]] = {
    "linear": (Table.linear(), Epsilon(), True),
    "scaled": (Table.scaled_linear(), V(), False),
    "cosine": (Table.cosine(), Clean(), True),
    "zero snr": (Table.linear().zero_terminal_snr(), V(), False),
    "own betas": (Table.constant(0.01, 500), Epsilon(), False),
}


@pytest.fixture(scope="module", params=list(PROCESSES))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    said = card(*PROCESSES[request.param])
    folder = tmp_path_factory.mktemp("pipelines") / "run"
    save(folder, build(said, 1), said)
    return load(folder, "cpu")


def start(n: int = 2) -> Tensor:
    return Noise(tuple(range(n))).normal(SHAPE, "start")


def shown(x: Tensor) -> np.ndarray:
    return (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def test_the_scheduler_says_what_we_do(run: Run) -> None:
    said = json.loads((run.path / "scheduler" / "scheduler_config.json").read_text())
    scheduler = diffusers.DDPMScheduler.from_config(said)
    table = run.model.schedule
    assert isinstance(table, Table)
    np.testing.assert_allclose(
        scheduler.alphas_cumprod.numpy(), table.alpha_bar.numpy(), rtol=2e-4, atol=1e-7
    )
    assert said["clip_sample"] is run.card.clip
    assert said["timestep_spacing"] == "trailing"
    kinds: dict[type, str] = {Epsilon: "epsilon", Clean: "sample", V: "v_prediction"}
    assert said["prediction_type"] == kinds[type(run.model.prediction)]


def test_the_schedules_are_said_by_their_names(tmp_path: Path) -> None:
    found: dict[str, tuple[str, bool, bool]] = {}
    for name, process in PROCESSES.items():
        folder = tmp_path / name.replace(" ", "-")
        save(folder, build(card(*process)), card(*process))
        said = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        listed = said["trained_betas"] is not None
        found[name] = (said["beta_schedule"], said["rescale_betas_zero_snr"], listed)
    assert found == {
        "linear": ("linear", False, False),
        "scaled": ("scaled_linear", False, False),
        "cosine": ("squaredcos_cap_v2", False, False),
        "zero snr": ("linear", True, False),
        "own betas": ("linear", False, True),
    }


@pytest.mark.parametrize(("spacing", "grid"), [("trailing", plans.trailing), ("leading", plans.leading)])
def test_ddim_gives_the_same_pictures(
    spacing: str, grid: plans.Grid, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where x0 is clipped, diffusers keeps the old eps unless told to let it follow, as ours does."""
    pipeline = diffusers.DDIMPipeline.from_pretrained(run.path)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing=spacing
    )
    monkeypatch.setattr(ddim_module, "randn_tensor", lambda *_, **__: start())
    theirs = pipeline(
        batch_size=2, num_inference_steps=20, output_type="np", use_clipped_model_output=run.card.clip or None
    ).images
    ours = run.sample(2, steps=20, sampler=Sampler(Multistep(order=1), grid=grid))
    assert np.abs(shown(ours) - theirs).max() <= 1e-4


@pytest.mark.slow
def test_ddpm_gives_the_same_pictures(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = diffusers.DDPMPipeline.from_pretrained(run.path)
    pipeline.set_progress_bar_config(disable=True)
    steps = iter(range(1000))
    fresh = lambda *_, **__: Noise((0, 1)).normal(SHAPE, "step", next(steps))
    monkeypatch.setattr(ddpm_module, "randn_tensor", lambda *_, **__: start())
    monkeypatch.setattr(scheduling_module, "randn_tensor", fresh)
    theirs = pipeline(batch_size=2, num_inference_steps=50, output_type="np").images
    ours = run.sample(2, steps=50, sampler="ddpm")
    assert np.abs(shown(ours) - theirs).max() <= 1e-4


def test_a_conditional_run_opens_as_a_network(tmp_path: Path) -> None:
    said = card(
        Table.linear(),
        Epsilon(),
        True,
        network=network(classes=4, null_class=True),
        classes=("a", "b", "c", "d"),
    )
    save(tmp_path / "run", build(said, 3), said)
    run = load(tmp_path / "run", "cpu")
    theirs = diffusers.UNet2DModel.from_pretrained(tmp_path / "run", subfolder="unet").eval()
    x, classes = start(5), torch.tensor([0, 1, 2, 3, 4])  # the last row is "no class"
    t = torch.tensor([0, 10, 500, 900, 999])
    with torch.no_grad():
        one = theirs(x, t, class_labels=classes).sample
        two = run.model.network(x, t.float(), classes=classes)
    assert (one - two).abs().max() <= 1e-5
    assert not (tmp_path / "run" / "model_index.json").exists()
    assert "no pipeline for classes" in str(run.card.diffusers)


NOT: dict[str, dict[str, Any]] = {
    "curve": {"schedule": Cosine(), "label": Steps(1000), "prediction": V()},
    "flow": {"schedule": RectifiedFlow(), "prediction": Flow()},
    "label": {"label": LogSigma()},
    "scale": {"data_std": 0.5},
    "prediction": {"prediction": V(0.5, -1.0)},
    "range": {"image": ImageSettings(channels=3, height=8, width=8, low=0.0, high=1.0)},
    "skips": {"network": network(skips=False)},
    "dit": {"network": DiTConfig(3, 3, image_size=8, heads=2, head_channels=8, layers=1)},
}


@pytest.mark.parametrize("what", NOT)
def test_what_diffusers_cannot_say_gets_no_index_and_a_reason(what: str, tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "network": network(),
        "schedule": Table.linear(),
        "prediction": Epsilon(),
        "image": ImageSettings(channels=3, height=8, width=8),
    }
    said = Card.of(**{**values, **NOT[what]})
    written = save(tmp_path / "run", build(said), said)
    assert not (tmp_path / "run" / "model_index.json").exists()
    assert written.diffusers
    assert load(tmp_path / "run", "cpu").sample(1, steps=2).shape == (1, *SHAPE)


# the other way: folders that diffusers wrote


def theirs(folder: Path, scheduler: Any, **more: Any) -> Any:
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        **more,
    )
    pipeline = diffusers.DDPMPipeline(unet=unet, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return pipeline


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False},
        {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "clip_sample": False},
        {"trained_betas": [0.01 + 0.001 * i for i in range(40)], "num_train_timesteps": 40},
    ],
    ids=["default", "scaled", "cosine", "betas"],
)
def test_a_folder_of_diffusers_is_a_run(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = theirs(tmp_path / "theirs", diffusers.DDPMScheduler(timestep_spacing="trailing", **settings))
    run = load(tmp_path / "theirs", "cpu")
    assert run.card.clip is settings.get("clip_sample", True)
    steps = iter(range(1000))
    fresh = lambda *_, **__: Noise((0, 1)).normal(SHAPE, "step", next(steps))
    monkeypatch.setattr(ddpm_module, "randn_tensor", lambda *_, **__: start())
    monkeypatch.setattr(scheduling_module, "randn_tensor", fresh)
    expected = pipeline(batch_size=2, num_inference_steps=20, output_type="np").images
    assert np.abs(shown(run.sample(2, steps=20, sampler="ddpm")) - expected).max() <= 1e-4


def test_old_names_and_split_weights_of_diffusers_are_read(tmp_path: Path) -> None:
    pipeline = theirs(tmp_path / "theirs", diffusers.DDPMScheduler())
    one = load(tmp_path / "theirs", "cpu").sample(1, steps=3)
    home = tmp_path / "theirs" / "unet"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state: dict[str, Tensor] = {}
    for name, tensor in pipeline.unet.state_dict().items():
        for new, was in old.items():
            name = name.replace(f".{new}.", f".{was}.")
        state[name] = tensor
    from safetensors.torch import save_file

    save_file(state, home / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    assert torch.equal(load(tmp_path / "theirs", "cpu").sample(1, steps=3), one)
    pipeline.unet.save_pretrained(home, max_shard_size="50KB")
    assert len(list(home.glob("*-of-*.safetensors"))) > 1
    (home / "diffusion_pytorch_model.safetensors").unlink(missing_ok=True)
    assert torch.equal(load(tmp_path / "theirs", "cpu").sample(1, steps=3), one)


def spoil(folder: Path, name: str, **values: Any) -> None:
    said = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**said, **values}))


SPOILT: dict[str, tuple[str, dict[str, Any], str]] = {
    "other class": ("unet/config.json", {"_class_name": "EvilModel"}, "_class_name"),
    "auto_map": ("unet/config.json", {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
    "giant": ("unet/config.json", {"layers_per_block": 10**9}, "layers"),
    "other scheduler": ("scheduler/scheduler_config.json", {"_class_name": "Evil"}, "_class_name"),
    "other betas": ("scheduler/scheduler_config.json", {"beta_schedule": "laplace"}, "beta_schedule"),
    "steps 1e9": ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, "num_train_timesteps"),
    "steps 1.5": ("scheduler/scheduler_config.json", {"num_train_timesteps": 1.5}, "num_train_timesteps"),
    "beta 2": ("scheduler/scheduler_config.json", {"beta_end": 2.0}, "beta_end"),
    "thresholding": ("scheduler/scheduler_config.json", {"thresholding": True}, "thresholding"),
    "range": ("scheduler/scheduler_config.json", {"clip_sample_range": 3.0}, "clip_sample_range"),
    "prediction": (
        "scheduler/scheduler_config.json",
        {"prediction_type": "flow_prediction"},
        "prediction_type",
    ),
    "betas": ("scheduler/scheduler_config.json", {"trained_betas": [0.1, "x"]}, "trained_betas"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_cannot_be_honoured_is_refused_by_its_key(what: str, tmp_path: Path) -> None:
    theirs(tmp_path / "run", diffusers.DDPMScheduler())
    name, values, words = SPOILT[what]
    spoil(tmp_path / "run", name, **values)
    with pytest.raises(SfumatoError, match=words) as found:
        load(tmp_path / "run", "cpu")
    assert "\n" not in str(found.value)


def test_a_network_of_latents_is_not_taken_for_one_of_pictures(tmp_path: Path) -> None:
    """Its four channels are no colours: they would be drawn as a picture with transparency."""
    theirs(tmp_path / "run", diffusers.DDPMScheduler())
    (tmp_path / "run" / "vae").mkdir()
    with pytest.raises(RunError, match="latents, which the autoencoder in vae/ decodes"):
        load(tmp_path / "run", "cpu")


def test_a_pickle_is_named_and_not_opened(tmp_path: Path) -> None:
    theirs(tmp_path / "run", diffusers.DDPMScheduler())
    weights = tmp_path / "run" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(RunError, match="pickle"):
        load(tmp_path / "run", "cpu")
