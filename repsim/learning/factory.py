"""Rules by name: ours, and a user's own."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from repsim.core.messages import require, unknown
from repsim.core.registry import Registry
from repsim.learning.rule import Rule
from repsim.learning.rules.backpropagation import Backpropagation
from repsim.learning.rules.direct import DirectFeedbackAlignment
from repsim.learning.rules.equilibrium import EquilibriumPropagation
from repsim.learning.rules.feedback import FeedbackAlignment
from repsim.learning.rules.forward_forward import ForwardForward
from repsim.learning.rules.kickback import Kickback
from repsim.learning.rules.kolen_pollack import KolenPollack
from repsim.learning.rules.local_losses import LocalLosses
from repsim.learning.rules.no_backpropagation import NoBackpropagation
from repsim.learning.rules.noise import Noise
from repsim.learning.rules.pepita import Pepita
from repsim.learning.rules.predictive_coding import PredictiveCoding
from repsim.learning.rules.sign_symmetry import SignSymmetry
from repsim.learning.rules.synthetic import (
    SyntheticGradient,
    UnconditionedSyntheticGradient,
)
from repsim.learning.rules.target_projection import DirectRandomTargetProjection
from repsim.learning.rules.target_propagation import DifferenceTargetPropagation
from repsim.learning.rules.weight_mirrors import WeightMirrors

RuleFactory = Callable[..., Rule]

rules: Registry[RuleFactory] = Registry("rule")


def names() -> list[str]:
    """Return the names of all rules, ours first.

    Returns
    -------
    list of str
        What `make` takes.

    Examples
    --------
    >>> names()[:2]
    ['bp', 'sg']
    """
    return rules.names()


def register(name: str, factory: RuleFactory) -> None:
    """Add a rule of one's own.

    Parameters
    ----------
    name : str
        Its name in `make`, studies and plots.
    factory : callable
        ``f(network, **options)`` → Rule; a subclass of `Rule` is one.

    Raises
    ------
    TypeError
        If `factory` is not callable, or the name no string.
    ValueError
        If the name is empty, holds one of the signs ``: , = /``, or is taken by
        something else.

    Examples
    --------
    >>> from repsim.learning.rule import Rule
    >>> class Half(Rule):
    ...     '''Backpropagation, with half the error below the first block.'''
    ...     name, cuts = "half", property(lambda self: self.hidden[:1])
    ...     def error(self, cut):
    ...         return cut.incoming / 2
    >>> register("half", Half)
    >>> make("half", nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))).name
    'half'
    >>> unregister("half")
    """
    wanted = "`factory` to be a function f(network, **options) or a subclass of Rule"
    rules.register(name, factory, expected=wanted)


def unregister(name: str) -> None:
    """Forget a rule.

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
    >>> register("mine", Backpropagation)
    >>> unregister("mine")
    """
    rules.unregister(name)


def make(name: str, network: nn.Module, **options: Any) -> Rule:
    """Return a learning rule on a network.

    Parameters
    ----------
    name : str
        One of `names()`.
    network : Module
        A sequence of named blocks; see `Rule`.
    **options
        The rule's own: `lr`, `loss`, `optimizer`, `blocks` and `seed` for every one,
        further ones in the class's docstring.

    Returns
    -------
    Rule
        With `step`, `errors`, `state_dict` and `load_state_dict`.

    Raises
    ------
    ValueError
        If the name or an option is unknown, an option's value wrong, or the network
        no sequence of blocks.
    TypeError
        If a user's factory gives something else than a `Rule`.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3, 3], classes=2, seed=0)
    >>> make("sg", net, at="every").splits
    ['hidden_1', 'hidden_2']
    """
    made = rules.get(name)
    known = options_of(name)
    for option in options:
        if known is not None and option not in known:
            raise ValueError(unknown(f"option of rule {name!r}", option, known))
    rule = made(network, **options)
    require(
        isinstance(rule, Rule), rule, f"the factory of rule {name!r} to give a Rule"
    )
    rule.prepare()
    return rule


def options_of(name: str) -> list[str] | None:
    """Return the names of a rule's options, or None where it takes any.

    Parameters
    ----------
    name : str
        The rule's name.

    Returns
    -------
    list of str or None
        Keyword names.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> options_of("bp")
    ['lr', 'loss', 'optimizer', 'blocks', 'seed']
    """
    made = rules.get(name)
    if isinstance(made, type) and issubclass(made, Rule):
        return made.option_names()
    kinds = list(inspect.signature(made).parameters.values())
    if any(kind.kind is inspect.Parameter.VAR_KEYWORD for kind in kinds):
        return None
    return [kind.name for kind in kinds if kind.name != "network"]


OURS: tuple[type[Rule], ...] = (
    Backpropagation,
    SyntheticGradient,
    UnconditionedSyntheticGradient,
    FeedbackAlignment,
    DirectFeedbackAlignment,
    Kickback,
    Noise,
    LocalLosses,
    SignSymmetry,
    KolenPollack,
    WeightMirrors,
    DirectRandomTargetProjection,
    DifferenceTargetPropagation,
    Pepita,
    ForwardForward,
    PredictiveCoding,
    EquilibriumPropagation,
    NoBackpropagation,
)
for _rule in OURS:
    register(_rule.name, _rule)
