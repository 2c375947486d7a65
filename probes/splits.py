"""One split of the examples, shared by every layer, step and control."""

from numbers import Real

import numpy as np
from sklearn.model_selection import train_test_split

from repsim.core.messages import seed_number
from repsim.probes.targets import Target, some


def split(target: Target, test_size: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of training and held-out examples."""
    if not isinstance(test_size, Real) or not 0 < float(test_size) < 1:
        msg = f"Expected `test_size` to be between 0 and 1, but got {test_size!r}."
        raise ValueError(msg)
    n = len(target.values)
    k = 2 if target.classes is None else len(target.classes)
    held = int(np.ceil(n * test_size))
    if min(held, n - held) < k:
        msg = (
            f"Expected `test_size` to leave at least {k} examples on either side, "
            f"but {test_size} of {n} examples leaves {n - held} and {held}."
        )
        raise ValueError(msg)
    train, test = train_test_split(
        np.arange(n),
        test_size=float(test_size),
        random_state=seed_number(seed),
        stratify=None if target.classes is None else target.values,
    )
    if target.classes is not None:
        lost = np.setdiff1d(np.arange(k), target.values[train])
        if lost.size:
            msg = (
                f"Expected a training example of every class of `target` "
                f"{target.name!r}, but `test_size`={test_size} leaves none of "
                f"{some(target.classes[lost])}; hold out less."
            )
            raise ValueError(msg)
    return np.sort(train), np.sort(test)
