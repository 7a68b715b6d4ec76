"""Linear measurements of pictures: masks, smaller pictures, blur, grey, compressed sensing."""

from sfumato.operators.circular import convolution
from sfumato.operators.masks import mask
from sfumato.operators.operator import Factors, Operator
from sfumato.operators.sensing import sensing
from sfumato.operators.separable import LUMA, Kernel, blur, downsample, grey
from sfumato.operators.written import compose, dense

__all__ = [
    "LUMA",
    "Factors",
    "Kernel",
    "Operator",
    "blur",
    "compose",
    "convolution",
    "dense",
    "downsample",
    "grey",
    "mask",
    "sensing",
]
