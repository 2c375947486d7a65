"""The paper's claims as executable checks: one file a group, verdicts computed."""

# Importing a group registers its claims.
from repsim.claims.base import Claim as Claim
from repsim.claims.base import Effect as Effect
from repsim.claims.base import Evidence as Evidence
from repsim.claims.base import Gate as Gate
from repsim.claims.base import registered as registered
from repsim.claims.experiments import artificial as artificial
from repsim.claims.experiments import bottleneck as bottleneck
from repsim.claims.experiments import bounded_error as bounded_error
from repsim.claims.experiments import critical_points as critical_points
from repsim.claims.experiments import deep_linear as deep_linear
from repsim.claims.experiments import exact_loss as exact_loss
from repsim.claims.experiments import labels_and_splits as labels_and_splits
from repsim.claims.experiments import linear_regression as linear_regression
from repsim.claims.experiments import loss_reconstruction as loss_reconstruction
from repsim.claims.experiments import one_frame as one_frame
from repsim.claims.experiments import optimisation as optimisation
from repsim.claims.experiments import representations as representations
from repsim.claims.experiments import settling as settling
from repsim.claims.experiments import two_gradients as two_gradients
from repsim.claims.experiments import weights_along_depth as weights_along_depth
from repsim.claims.reproduction import Reproduction as Reproduction
from repsim.claims.reproduction import reproduce as reproduce

__all__ = [
    "Claim",
    "Effect",
    "Evidence",
    "Gate",
    "Reproduction",
    "registered",
    "reproduce",
]


def __dir__() -> list[str]:
    return sorted(__all__)
