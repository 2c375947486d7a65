"""One training loop for every rule, its order of data, and its record."""

from repsim.training.asynchronous import replay as replay
from repsim.training.loop import train_together as train_together
