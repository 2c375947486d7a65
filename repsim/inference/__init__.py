"""How much of what we see examples, classes or seeds would do on their own."""

from repsim.inference.multiple import false_discovery as false_discovery
from repsim.inference.seeds import seed_test as seed_test
