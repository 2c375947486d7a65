"""Networks by name, made from what a study knows: ours, and a user's own."""

from collections.abc import Callable
from math import prod

from torch import nn

from repsim.core.registry import Registry
from repsim.networks.attention import vit
from repsim.networks.feedforward import cnn, mlp
from repsim.networks.residual import resnet

NetworkFactory = Callable[..., nn.Module]
"""What `register` takes: ``f(shape, classes, **options)`` that returns a network."""
"""f(shape, classes, *, depth, width, activation, seed) → Module of named blocks."""

networks: Registry[NetworkFactory] = Registry("network")


def names() -> list[str]:
    """Return the names of all networks, ours first.

    Returns
    -------
    list of str
        What `get` takes.

    Examples
    --------
    >>> names()
    ['mlp', 'cnn', 'resnet', 'vit']
    """
    return networks.names()


def get(name: str) -> NetworkFactory:
    """Return what makes a network.

    Parameters
    ----------
    name : str
        One of `names()`.

    Returns
    -------
    callable
        A factory ``f(shape, classes, *, depth, width, activation, seed)`` → Module of
        named blocks, with `shape` that of one input without the example axis.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> net = get("mlp")((1, 8, 8), 10, depth=2, width=5, activation="relu", seed=0)
    >>> [name for name, _ in net.named_children()]
    ['hidden_1', 'hidden_2', 'output']
    """
    return networks.get(name)


def register(name: str, factory: NetworkFactory) -> None:
    """Add a network of one's own.

    Parameters
    ----------
    name : str
        Its name in `get` and studies.
    factory : callable
        ``f(shape, classes, *, depth, width, activation, seed)`` → Module of named
        blocks, the last one the output.

    Raises
    ------
    TypeError
        If `factory` is not callable, or the name no string.
    ValueError
        If the name is empty, holds one of the signs ``: , = /``, or is taken.

    Examples
    --------
    >>> def tiny(shape, classes, *, depth, width, activation, seed):
    ...     return mlp(shape[0], [width] * depth, classes, activation, seed=seed)
    >>> register("tiny", tiny)
    >>> len(get("tiny")((4,), 2, depth=1, width=3, activation="relu", seed=0))
    2
    >>> unregister("tiny")
    """
    expected = "`factory` to be a function f(shape, classes, *, depth, width, …)"
    networks.register(name, factory, expected=expected)


def unregister(name: str) -> None:
    """Forget a network.

    Parameters
    ----------
    name : str
        Its name.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> register("mine", mlp)
    >>> unregister("mine")
    """
    networks.unregister(name)


def _mlp(
    shape: tuple[int, ...],
    classes: int,
    *,
    depth: int,
    width: int,
    activation: str,
    seed: int | None,
) -> nn.Module:
    """Return `mlp` on flat inputs."""
    return mlp(prod(shape), [width] * depth, classes, activation, seed=seed)


def _cnn(
    shape: tuple[int, int, int],
    classes: int,
    *,
    depth: int,
    width: int,
    activation: str,
    seed: int | None,
) -> nn.Module:
    """Return `cnn` with the same number of channels everywhere."""
    return cnn(shape, [width] * depth, classes, activation, seed=seed)


for _name, _factory in (("mlp", _mlp), ("cnn", _cnn), ("resnet", resnet), ("vit", vit)):
    networks.register(_name, _factory)
