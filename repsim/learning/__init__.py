"""How the error reaches a layer: learning rules in one frame."""

from repsim.learning.base import Rule as Rule
from repsim.learning.diagnostics import error_diagnostics as error_diagnostics
from repsim.learning.frame import Cut as Cut
from repsim.learning.info import Info as Info
from repsim.learning.potential import ReconstructedLoss as ReconstructedLoss
from repsim.learning.potential import reconstructed_loss as reconstructed_loss
from repsim.learning.registry import make as make
from repsim.learning.registry import names as names
from repsim.learning.registry import options_of as options_of
from repsim.learning.registry import register as register
from repsim.learning.registry import unregister as unregister
from repsim.learning.unification import table as table
