"""Networks as sequences of named blocks."""

from repsim.networks.attention import vit as vit
from repsim.networks.factories import NetworkFactory as NetworkFactory
from repsim.networks.factories import get as get
from repsim.networks.factories import names as names
from repsim.networks.factories import register as register
from repsim.networks.factories import unregister as unregister
from repsim.networks.feedforward import ACTIVATIONS as ACTIVATIONS
from repsim.networks.feedforward import BatchNorm as BatchNorm
from repsim.networks.feedforward import cnn as cnn
from repsim.networks.feedforward import mlp as mlp
from repsim.networks.residual import resnet as resnet

__all__ = [
    "ACTIVATIONS",
    "BatchNorm",
    "NetworkFactory",
    "cnn",
    "get",
    "mlp",
    "names",
    "register",
    "resnet",
    "unregister",
    "vit",
]


def __dir__() -> list[str]:
    return sorted(__all__)
