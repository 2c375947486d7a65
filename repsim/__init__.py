"""repsim: where, and when in training, two ways of learning differ inside a network.

Every name is loaded when it is first used; `__init__.pyi` lists them, and where each
one lies.
"""

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import lazy_loader as _lazy

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
from repsim.comparison.live_models import compare_models as compare_models
from repsim.comparison.streaming import StreamingCKA as StreamingCKA
from repsim.core.provenance import repsim_version as _version
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


def _expect_only_us() -> None:
    """Refuse a folder of another project's `repsim`, and a checkout without rooms."""
    here = Path(__file__).resolve()
    try:
        theirs = distribution("repsim")
    except PackageNotFoundError:
        pass
    else:
        for file in theirs.files or ():
            if Path(str(theirs.locate_file(file))).resolve() == here:
                msg = (
                    "Expected repsim-toolkit alone in its folder, but PyPI's `repsim` "
                    f"{theirs.version}, another project, is installed into the same "
                    f"one ({here.parent}); run `pip uninstall repsim repsim-toolkit`, "
                    "then install repsim-toolkit again."
                )
                raise ImportError(msg)
    if find_spec("repsim.datasets") is None:
        msg = (
            "Expected the installed repsim, but got the folder ./repsim of a checkout "
            "without its rooms; install with `pip install -e .`, or start Python "
            "elsewhere."
        )
        raise ImportError(msg)


_expect_only_us()
__version__ = _version()
__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
