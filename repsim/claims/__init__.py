"""The paper's claims as executable checks: one file a group, verdicts computed."""

# Importing a group registers its claims, in this order.
from repsim.claims.experiments import critical_points as critical_points  # isort: skip
from repsim.claims.experiments import bottleneck as bottleneck  # isort: skip
from repsim.claims.experiments import linear_convergence as linear_convergence  # isort: skip
from repsim.claims.experiments import artificial as artificial  # isort: skip
from repsim.claims.experiments import loss_reconstruction as loss_reconstruction  # isort: skip
from repsim.claims.experiments import optimisation as optimisation  # isort: skip
from repsim.claims.experiments import representations as representations  # isort: skip
from repsim.claims.experiments import unification as unification  # isort: skip
from repsim.claims.base import Claim as Claim  # isort: skip
from repsim.claims.base import Evidence as Evidence  # isort: skip
from repsim.claims.base import Gate as Gate  # isort: skip
from repsim.claims.base import registered as registered  # isort: skip
from repsim.claims.reproduction import Reproduction as Reproduction  # isort: skip
from repsim.claims.reproduction import reproduce as reproduce  # isort: skip
