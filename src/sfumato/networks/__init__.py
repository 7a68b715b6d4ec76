"""Networks: (x, label, classes, vector, context) -> y. They know nothing of diffusion.

Parameter names and numerics are those of diffusers' UNet2DModel, UNet2DConditionModel and
DiTTransformer2DModel wherever these can express the network, so weights load both ways without renaming
(`sfumato.interop.diffusers`).
"""

from sfumato.networks.classifier import Classifier, ClassifierConfig
from sfumato.networks.dit import DiT, DiTConfig
from sfumato.networks.presets import MODELS, SIZES, learning_rate, preset, text_preset, transformer_preset
from sfumato.networks.settings import Config, build, from_json, parameter_count, to_json
from sfumato.networks.unet import UNet
from sfumato.networks.unet_config import UNetConfig

__all__ = [
    "MODELS",
    "SIZES",
    "Classifier",
    "ClassifierConfig",
    "Config",
    "DiT",
    "DiTConfig",
    "UNet",
    "UNetConfig",
    "build",
    "from_json",
    "learning_rate",
    "parameter_count",
    "preset",
    "text_preset",
    "to_json",
    "transformer_preset",
]
