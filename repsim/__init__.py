"""repsim: where, and when in training, two ways of learning differ inside a network."""

from importlib.metadata import version as _version

try:
    from repsim import datasets as datasets
except ImportError as error:
    if error.name != "repsim.datasets":
        raise
    msg = (
        "Expected the installed repsim, but got the folder ./repsim of a checkout "
        "without its rooms; install with `pip install -e .`, or start Python elsewhere."
    )
    raise ImportError(msg) from error

from repsim.datasets.recordings import layers as layers

__version__ = _version("repsim")
