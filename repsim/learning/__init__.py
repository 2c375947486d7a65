"""How the error reaches a layer: learning rules in one frame."""

from repsim.learning import schedules as schedules
from repsim.learning.diagnostics import error_diagnostics as error_diagnostics
from repsim.learning.factory import make as make
from repsim.learning.factory import names as names
from repsim.learning.factory import options_of as options_of
from repsim.learning.factory import register as register
from repsim.learning.factory import unregister as unregister
from repsim.learning.implied_loss import ReconstructedLoss as ReconstructedLoss
from repsim.learning.implied_loss import reconstructed_loss as reconstructed_loss
from repsim.learning.passes import Cut as Cut
from repsim.learning.recurrent import (
    RecurrentSyntheticGradient as RecurrentSyntheticGradient,
)
from repsim.learning.rule import Rule as Rule
from repsim.learning.rule_info import Diverged as Diverged
from repsim.learning.rule_info import Info as Info
from repsim.learning.segments import Segment as Segment
from repsim.learning.unification import table as table

__all__ = [
    "Cut",
    "Diverged",
    "Info",
    "ReconstructedLoss",
    "RecurrentSyntheticGradient",
    "Rule",
    "Segment",
    "error_diagnostics",
    "make",
    "names",
    "options_of",
    "reconstructed_loss",
    "register",
    "schedules",
    "table",
    "unregister",
]


def __dir__() -> list[str]:
    return sorted(__all__)
