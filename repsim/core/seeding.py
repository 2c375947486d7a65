"""Seeds derived from what they are for."""

from zlib import crc32

import numpy as np


def derived_seed(purpose: str, label: str, seed: int) -> int:
    """Return a 31-bit seed that depends on all three and on nothing else."""
    entropy = [crc32(purpose.encode()), crc32(label.encode()), seed]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
