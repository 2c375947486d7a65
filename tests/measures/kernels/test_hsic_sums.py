"""Products of rows, whichever routine does them."""

import numpy as np
import pytest
import torch

import repsim
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


@pytest.mark.parametrize("others", [37, 5])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_copies_of_a_layer_are_level_wherever_they_stand(
    rng: np.random.Generator, precision: str, others: int
) -> None:
    x = np.maximum(rng.normal(size=(400, 37)), 0)
    y = np.maximum(rng.normal(size=(400, others)), 0)
    run = repsim.from_arrays({f"h{i}": (x, y)[i % 2] for i in range(30)})
    cells = repsim.compare(run, precision=precision).values
    # Where in a product it stands may change a number's last digits, by library: not
    # more than the precision promises.
    lost = {"float32": 2e-6, "float64": 1e-12}[precision]
    assert np.abs(cells[::2, ::2] - 1).max() < lost
    assert np.ptp(cells[::2, 1::2]) < lost
