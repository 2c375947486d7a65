"""Networks as sequences of named blocks."""

from repsim.networks.feedforward import ACTIVATIONS as ACTIVATIONS
from repsim.networks.feedforward import BatchNorm as BatchNorm
from repsim.networks.feedforward import cnn as cnn
from repsim.networks.feedforward import mlp as mlp
