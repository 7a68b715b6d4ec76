"""EfficientNet-Lite0 (Tan & Le 2019; the "lite" form of Tan & Liu 2020): a small classifier of photographs.

Beside EfficientNet-B0: no squeeze-and-excitation, ReLU6 for swish. Parameter names are those of
`efficientnet-lite-pytorch`, so its published weights load unchanged.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""(blocks, kernel, stride of the first, expansion, channels)."""
STEM, WIDTH, CLASSES = 32, 1280, 1000


class Same(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "SAME": the odd row and column at the end."""

    def __init__(self, ins: int, outs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(ins, outs, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads: list[int] = []
        for side in (input.shape[3], input.shape[2]):
            pad = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [pad // 2, pad - pad // 2]
        return super().forward(F.pad(input, pads) if any(pads) else input)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """An inverted residual (Sandler et al. 2018): widen, look around in each channel, narrow, add."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = ins * expansion
        self.adds = stride == 1 and ins == outs
        self._expand_conv = Same(ins, wide) if expansion > 1 else None
        self._bn0 = _norm(wide) if expansion > 1 else None
        self._depthwise_conv = Same(wide, wide, kernel, stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv = Same(wide, outs)
        self._bn2 = _norm(outs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ins, H, W) -> (B, outs, H / stride, W / stride), rounded up."""
        h = x if self._expand_conv is None else F.relu6(self._bn0(self._expand_conv(x)))
        h = F.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.adds else h


class EfficientNetLite0(nn.Module):
    """Pictures (B, 3, H, W) -> features (B, 1280) and ImageNet's logits (B, 1000); made for 224 x 224."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = Same(3, STEM, 3, 2)
        self._bn0 = _norm(STEM)
        self._blocks = nn.ModuleList()
        ins = STEM
        for count, kernel, stride, expansion, outs in STAGES:
            for i in range(count):
                self._blocks.append(Block(ins, outs, kernel, 1 if i else stride, expansion))
                ins = outs
        self._conv_head = Same(ins, WIDTH)
        self._bn1 = _norm(WIDTH)
        self._fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            h = block(h)
        features = F.relu6(self._bn1(self._conv_head(h))).mean((2, 3))
        return features, self._fc(features)
