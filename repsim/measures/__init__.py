"""Measures of similarity and distance between representations, by family."""

from repsim.measures.kernels import cka as cka
from repsim.measures.kernels import hsic as hsic
from repsim.measures.registry import Measure as Measure
from repsim.measures.registry import get as get
from repsim.measures.registry import names as names
from repsim.measures.registry import register as register
