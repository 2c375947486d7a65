"""How much of what we see examples, classes or seeds would do on their own."""

from repsim.inference.designs import false_discovery as false_discovery
from repsim.inference.equivalence import equivalence_test as equivalence_test
from repsim.inference.equivalence import seeds_needed as seeds_needed
from repsim.inference.intervals import confidence as confidence
from repsim.inference.layer_profiles import profile_test as profile_test
from repsim.inference.matching import at_accuracy as at_accuracy
from repsim.inference.model_tests import model_test as model_test
from repsim.inference.permutation import permutation_test as permutation_test
from repsim.inference.seed_tests import seed_test as seed_test
from repsim.inference.sentences import describe as describe
from repsim.inference.sentences import findings as findings
from repsim.inference.summaries import summary as summary
from repsim.inference.summaries import table as table

__all__ = [
    "at_accuracy",
    "confidence",
    "describe",
    "equivalence_test",
    "false_discovery",
    "findings",
    "model_test",
    "permutation_test",
    "profile_test",
    "seed_test",
    "seeds_needed",
    "summary",
    "table",
]


def __dir__() -> list[str]:
    return sorted(__all__)
