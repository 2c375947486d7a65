"""Products of rows, whichever routine does them."""

import numpy as np
import pytest
import torch

from repsim.measures.kernels.hsic_sums import LeftFactor


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [(3, 5, 4), (300, 200, 150)])
@pytest.mark.parametrize("turned", [False, True])
def test_equals_the_product_in_float64(
    rng: np.random.Generator,
    dtype: torch.dtype,
    size: tuple[int, int, int],
    turned: bool,
) -> None:
    # The larger ones are worth oneDNN in float32; turned ones are not contiguous.
    n, width, others = size
    x = torch.as_tensor(rng.normal(size=(n, width))).to(dtype)
    y = torch.as_tensor(rng.normal(size=(others, width))).to(dtype)
    if turned:
        x, y = x.T.contiguous().T, y.T.contiguous().T
    offsets = torch.as_tensor(rng.normal(size=others)).to(dtype)
    rows, exact = LeftFactor(x), x.double() @ y.double().T
    bound = 8 * width**0.5 * torch.finfo(dtype).eps
    for found, expected in (
        (rows.times(y), exact),
        (rows.times(y, offsets), exact + offsets.double()),
        (rows.times(y, out=torch.empty(n, others, dtype=dtype)), exact),
    ):
        assert found.dtype == dtype
        assert (found.double() - expected).abs().max() < bound * exact.abs().max()
