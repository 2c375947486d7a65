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

from repsim import callbacks as callbacks
from repsim import claims as claims
from repsim import inference as inference
from repsim import learning as learning
from repsim import measures as measures
from repsim import networks as networks
from repsim import plot as plot
from repsim import probes as probes
from repsim.capture.recorder import Recorder as Recorder
from repsim.capture.single import record as record
from repsim.capture.single import tap as tap
from repsim.comparison.all_pairs import compare as compare
from repsim.comparison.dimensions import effective_dimension as effective_dimension
from repsim.comparison.streaming import StreamingCKA as StreamingCKA
from repsim.datasets.recordings import layers as layers
from repsim.datasets.reduction import reduce as reduce
from repsim.datasets.store import open_recording as open_recording
from repsim.datasets.store import save_recording as save_recording
from repsim.datasets.studies import open_study as open_study
from repsim.geometry.between_networks import network_rdm as network_rdm
from repsim.geometry.ceilings import noise_ceiling as noise_ceiling
from repsim.geometry.embedding import embed as embed
from repsim.geometry.models import model_rdms as model_rdms
from repsim.geometry.profiles import class_margin as class_margin
from repsim.geometry.profiles import rdm_distance as rdm_distance
from repsim.geometry.regression import partial_rsa as partial_rsa
from repsim.geometry.regression import rdm_regression as rdm_regression
from repsim.geometry.stacks import rdms as rdms
from repsim.geometry.stacks import squareform as squareform
from repsim.measures import cca as cca
from repsim.measures import cka as cka
from repsim.measures import hsic as hsic
from repsim.measures import linear_predictivity as linear_predictivity
from repsim.measures import mutual_knn as mutual_knn
from repsim.measures import participation_ratio as participation_ratio
from repsim.measures import procrustes_distance as procrustes_distance
from repsim.measures import pwcca as pwcca
from repsim.measures import shape_distance as shape_distance
from repsim.measures import svcca as svcca
from repsim.measures.dissimilarity import rdm as rdm
from repsim.measures.dissimilarity import rsa as rsa
from repsim.measures.dissimilarity.comparators import compare_rdms as compare_rdms
from repsim.measures.dissimilarity.covariance import (
    noise_covariance as noise_covariance,
)
from repsim.measures.dissimilarity.crossvalidated import crossnobis as crossnobis
from repsim.studies.run import run_study as run_study
from repsim.training.loop import train as train

__version__ = _version("repsim-toolkit")
