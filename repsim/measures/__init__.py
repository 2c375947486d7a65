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
from repsim.measures.dimension import intrinsic_dimension as intrinsic_dimension
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
from repsim.measures.kernels.derived import angular_cka_distance as angular_cka_distance
from repsim.measures.kernels.derived import arccos_cka_distance as arccos_cka_distance
from repsim.measures.kernels.derived import distance_correlation as distance_correlation
from repsim.measures.local_kernels import cknna as cknna
from repsim.measures.local_kernels import second_order_cosine as second_order_cosine
from repsim.measures.neighbours import mutual_knn as mutual_knn
from repsim.measures.predictivity import linear_predictivity as linear_predictivity
from repsim.measures.predictivity import neural_predictivity as neural_predictivity
from repsim.measures.shape import procrustes_distance as procrustes_distance
from repsim.measures.shape import shape_distance as shape_distance
from repsim.measures.shrunken import gulp_distance as gulp_distance
from repsim.measures.shrunken import regularized_cca as regularized_cca
from repsim.measures.sphere import concentricity as concentricity
from repsim.measures.sphere import concentricity_difference as concentricity_difference
from repsim.measures.sphere import uniformity as uniformity
from repsim.measures.sphere import uniformity_difference as uniformity_difference
from repsim.measures.unit_matching import hard_unit_matching as hard_unit_matching
from repsim.measures.unit_matching import permutation_distance as permutation_distance
from repsim.measures.unit_matching import soft_unit_matching as soft_unit_matching

__all__ = [
    "INVARIANCES",
    "Measure",
    "angular_cka_distance",
    "arccos_cka_distance",
    "cca",
    "cka",
    "cknna",
    "compare_rdms",
    "concentricity",
    "concentricity_difference",
    "crossnobis",
    "distance_correlation",
    "get",
    "gulp_distance",
    "hard_unit_matching",
    "hsic",
    "intrinsic_dimension",
    "linear_predictivity",
    "mutual_knn",
    "names",
    "neural_predictivity",
    "noise_covariance",
    "participation_ratio",
    "permutation_distance",
    "procrustes_distance",
    "pwcca",
    "rdm",
    "register",
    "regularized_cca",
    "rsa",
    "second_order_cosine",
    "shape_distance",
    "soft_unit_matching",
    "svcca",
    "table",
    "uniformity",
    "uniformity_difference",
    "unregister",
]


def __dir__() -> list[str]:
    return sorted(__all__)
