"""Measures of similarity and distance between representations, by family."""

from repsim.measures.canonical import cca as cca
from repsim.measures.canonical import pwcca as pwcca
from repsim.measures.canonical import svcca as svcca
from repsim.measures.catalogue import INVARIANCES as INVARIANCES
from repsim.measures.catalogue import Measure as Measure
from repsim.measures.catalogue import get as get
from repsim.measures.catalogue import names as names
from repsim.measures.catalogue import register as register
from repsim.measures.catalogue import table as table
from repsim.measures.catalogue import unregister as unregister
from repsim.measures.dimension import participation_ratio as participation_ratio
from repsim.measures.dissimilarity import rdm as rdm
from repsim.measures.dissimilarity import rsa as rsa
from repsim.measures.dissimilarity.comparators import compare_rdms as compare_rdms
from repsim.measures.dissimilarity.covariance import (
    noise_covariance as noise_covariance,
)
from repsim.measures.dissimilarity.crossvalidated import crossnobis as crossnobis
from repsim.measures.kernels import cka as cka
from repsim.measures.kernels import hsic as hsic
from repsim.measures.neighbours import mutual_knn as mutual_knn
from repsim.measures.predictivity import linear_predictivity as linear_predictivity
from repsim.measures.shape import procrustes_distance as procrustes_distance
from repsim.measures.shape import shape_distance as shape_distance
