"""Convergence of linear and deep linear systems, and what 'close enough' means."""

import numpy as np
import torch
from matplotlib.figure import Figure

from repsim.claims.base import Evidence, Gate, claim
from repsim.claims.drawing import curves, scatter_bound
from repsim.claims.experiments.linear_systems import orthogonal, train
from repsim.claims.lab import Lab

RATES = (0.01, 0.1, 0.5, 1.0, 1.5, 1.8)
"""The model's rate as a multiple r of 1/lambda_max; plain descent needs r < 2."""

ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""Rise of the potential, of its first value, that float64 may make up (sums of 600
squares); what the claim finds is larger by ten orders of magnitude."""

FIXED_RATES = (0.003, 0.03, 0.1, 0.3)
"""Fixed rates of the predictor, the control without a line search."""


@claim(
    "C4",
    order=6,
    statement=(
        "Linear regression with a linear predictor converges to the global optimum "
        "when the predictor's rate is chosen by line search and the model's is small "
        "enough; the squared errors of network and predictor fall together."
    ),
    source="Czarnecki et al. 2017, Theorem 1 (potential: its proof idea)",
    experiment=(
        "n = 300, 5 inputs, 2 outputs, predictor from zero, exact line search; model "
        "rates r/lambda_max for r from 0.01 to 1.8; fixed predictor rates as control."
    ),
    gates=[
        Gate("largest gap", "<", 1e-8, "theory says zero; float64"),
        Gate("potential rises (r <= 1)", "==", 0.0, "a pilot: no rise up to r = 1"),
    ],
    seconds=5.0,
)
def linear_regression_converges(lab: Lab) -> Evidence:
    """Measure the distance from the optimum for every model rate."""
    iterations = 3000
    largest, rises, demanded, height, control = [], [], [], [], []
    shown: dict[str, np.ndarray] = {}
    fixed: dict[str, list[float]] = {f"{rate:g}": [] for rate in FIXED_RATES}
    for seed in lab.seeds:
        gaps, potential = _regression(seed, RATES, iterations)
        largest.append(float(gaps[-1].max()))
        # Near the optimum both terms are squares of rounding errors of h and y.
        up = np.diff(potential, axis=0) > ROUNDING * potential[:1]
        small, whole = (RATES.index(r) + 1 for r in (0.1, 1.0))
        rises.append(float(up[:, :small].sum()))
        demanded.append(float(up[:, :whole].sum()))
        grown = potential[1:, :whole] / potential[:-1, :whole] - 1
        height.append(float(np.where(up[:, :whole], grown, 0.0).max()))
        for i, rate in enumerate(RATES):
            shown.setdefault(f"r = {rate:g}", gaps[:, i])
        for rate in FIXED_RATES:
            final = _regression(seed, (0.5,), iterations, predictor_rate=rate)[0][-1, 0]
            fixed[f"{rate:g}"].append(float(final))
        control.append(
            sum(not values[-1] < 1e-8 for values in fixed.values()) / len(fixed)
        )
    figure = curves(
        {name: np.maximum(values, 1e-17) for name, values in shown.items()},
        xlabel="iteration",
        ylabel="loss − optimum",
        log=True,
        title="Line-searched predictor, by the model's rate r / λmax",
    )
    return Evidence(
        {
            "largest gap": largest,
            "potential rises (r <= 1)": demanded,
            "potential rises (r <= 0.1)": rises,
            "largest relative rise of the potential (r <= 1)": height,
            "fixed predictor rates that miss the optimum": control,
        },
        figure,
        {"gap with a fixed predictor rate": fixed},
        "Potential: squared distance from the optimum plus squared error of the "
        "predictor, per example, after each of its updates; a rise counts above "
        f"{ROUNDING:.1g} of the first value. Control: the predictor's rate fixed.",
    )


def _regression(
    seed: int,
    rates: tuple[float, ...],
    iterations: int,
    predictor_rate: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return gap and potential, (iteration, rate), of the coupled system."""
    rng = np.random.default_rng(seed)
    n, d, k = 300, 5, 2
    x = np.c_[rng.standard_normal((n, d)), np.ones(n)]
    y = x @ rng.standard_normal((d + 1, k)) + 0.5 * rng.standard_normal((n, k))
    best = x @ np.linalg.lstsq(x, y, rcond=None)[0]
    optimum = 0.5 * ((best - y) ** 2).sum() / n
    eta = np.asarray(rates)[:, None, None] / np.linalg.eigvalsh(x.T @ x / n)[-1]
    theta = np.zeros((len(rates), d + 1, k))
    phi = np.zeros((len(rates), 2 * k + 1, k))
    design = np.empty((len(rates), n, 2 * k + 1))
    design[:, :, k : 2 * k], design[:, :, 2 * k] = y, 1
    gaps, potential = np.empty((2, iterations, len(rates)))
    # The control is meant to diverge at some rates; that is its result.
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(iterations):
            h = x @ theta
            design[:, :, :k] = h
            delta = h - y
            error = design @ phi - delta
            slope = design.transpose(0, 2, 1) @ error
            along = design @ slope
            if predictor_rate is None:
                curvature = (along**2).sum((1, 2))
                step = (slope**2).sum((1, 2)) / np.maximum(curvature, 1e-300)
            else:
                step = np.full(len(rates), 2 * predictor_rate / n)
            phi -= step[:, None, None] * slope
            synthetic = design @ phi
            gaps[t] = 0.5 * (delta**2).sum((1, 2)) / n - optimum
            potential[t] = ((h - best) ** 2).sum((1, 2)) / n
            potential[t] += ((synthetic - delta) ** 2).sum((1, 2)) / n
            theta -= eta * (x.T @ synthetic) / n
    return np.abs(gaps), potential


@claim(
    "C5",
    order=7,
    statement=(
        "Deep linear networks under squared error converge with a linear predictor "
        "between two of their layers."
    ),
    source="Czarnecki et al. 2017, Corollary 1",
    experiment=(
        "Depths 3 and 10, width 5. Exact: the predictor is refitted before every step "
        "and the rate backtracked on the true loss. Learned: full batches, Adam 3e-3 "
        "falling to zero, against backpropagation from the same start."
    ),
    gates=[
        Gate("gap with exact tracking", "<", 1e-6, "theory says zero"),
        Gate("rises with exact tracking", "==", 0.0, "backtracked rate"),
        Gate("gap with a learned predictor", "<", 1e-3, "trials of ours: 4e-4"),
    ],
    seconds=lambda settings: 20.0 + 0.03 * settings.scale.learned_steps,
)
def deep_linear_converges(lab: Lab) -> Evidence:
    """Measure the distance from the optimum with exact and with learned predictors."""
    exact: list[float] = []
    rises: list[float] = []
    learned: list[float] = []
    shown: dict[str, np.ndarray] = {}
    for depth in (3, 10):
        for seed in lab.seeds:
            losses = _tracked(seed, depth, iterations=3000)
            exact.append(float(losses[-1]))
            rises.append(float((np.diff(losses) > 1e-14).sum()))
            shown.setdefault(f"depth {depth}, exact", np.maximum(losses, 1e-17))
        bp, sg = _learned(lab, depth)
        learned += np.abs(sg[-1] - bp[-1]).tolist()
        shown[f"depth {depth}, learned"] = np.maximum(sg[:, 0], 1e-17)
        shown[f"depth {depth}, backpropagation"] = np.maximum(bp[:, 0], 1e-17)
    figure = curves(
        shown,
        xlabel="iteration",
        ylabel="loss − optimum",
        log=True,
        title="Deep linear networks, squared error",
    )
    measured = {
        "gap with exact tracking": exact,
        "rises with exact tracking": rises,
        "gap with a learned predictor": learned,
    }
    return Evidence(measured, figure)


def _linear_task(seed: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 5, generator=generator, dtype=torch.float64)
    target = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(200, 2, generator=generator, dtype=torch.float64)
    y = x @ target + 0.3 * noise
    # Centred, so that the optimum is the same with biases and without.
    x, y = x - x.mean(0), y - y.mean(0)
    best = x @ torch.linalg.lstsq(x, y).solution
    return x, y, float(0.5 * (best - y).square().sum() / len(x))


def _tracked(seed: int, depth: int, iterations: int) -> np.ndarray:
    """Return loss − optimum when the predictor in the middle is refitted every step."""
    x, y, optimum = _linear_task(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    eye = torch.eye(5, dtype=torch.float64)
    weights = [
        eye + 0.1 * torch.randn(5, 5, generator=generator, dtype=torch.float64)
        for _ in range(depth - 1)
    ]
    weights.append(torch.randn(5, 2, generator=generator, dtype=torch.float64) / 5**0.5)

    def loss(candidate: list[torch.Tensor]) -> float:
        output = x
        for w in candidate:
            output = output @ w
        return float(0.5 * (output - y).square().sum() / len(x))

    rate, value, path = 0.1, loss(weights), []
    for _ in range(iterations):
        path.append(value - optimum)
        if value - optimum < 1e-15:
            break
        gradients = _tracked_gradients(weights, x, y)
        size = sum(float(g.square().sum()) for g in gradients)
        rate *= 2
        for _ in range(60):
            moved = [w - rate * g for w, g in zip(weights, gradients, strict=True)]
            after = loss(moved)
            if after <= value - 1e-4 * rate * size:
                weights, value = moved, after
                break
            rate /= 2
        else:  # no step of double precision lowers the loss any further
            break
    return np.array(path + [value - optimum])


def _tracked_gradients(
    weights: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> list[torch.Tensor]:
    """Return gradients: true above the middle, from a refitted predictor below."""
    split = len(weights) // 2
    h = [x]
    for w in weights:
        h.append(h[-1] @ w)
    error = h[-1] - y
    gradients = []
    for i in reversed(range(len(weights))):
        gradients.append(h[i].T @ error / len(x))
        error = error @ weights[i].T
        if i == split:
            design = torch.cat([h[i], y, torch.ones(len(x), 1, dtype=x.dtype)], 1)
            fit = torch.linalg.lstsq(design, error, driver="gelsd").solution
            error = design @ fit
    return gradients[::-1]


def _learned(lab: Lab, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Return loss − optimum, (update, seed), of backpropagation and with a predictor.

    Full batches and Adam, the rate falling to zero over the second half.
    """
    x, y, optima = zip(*(_linear_task(seed) for seed in lab.seeds), strict=True)
    sizes = [5] * depth + [2]
    start = torch.stack([orthogonal(sizes, seed) for seed in lab.seeds]).double()
    bp, sg = (
        train(
            torch.stack(x), torch.stack(y), start, sizes, loss="mse", split=split,
            steps=lab.settings.scale.learned_steps,
        ).numpy() - np.array(optima)
        for split in (None, depth // 2)
    )  # fmt: skip
    return bp, sg


@claim(
    "C6",
    order=8,
    statement=(
        "A synthetic gradient that stays close enough to the true one, relative to its "
        "size, still descends: the angle is bounded and training reaches a critical "
        "point."
    ),
    source="Czarnecki et al. 2017, Proposition 2 (sharper bound ours)",
    experiment=(
        "20,000 random pairs of a gradient and an error of relative size r; then a "
        "small tanh network descends on gradients disturbed by errors of half their "
        "size, in float64."
    ),
    gates=[
        Gate("violations of cos >= d", "==", 0.0, "exact by theory"),
        Gate("violations of cos >= sqrt(1 - r^2)", "==", 0.0, "exact by theory"),
        Gate("final gradient norm", "<", 1e-6, "convergence in float64"),
    ],
    seconds=12.0,
)
def close_enough_descends(lab: Lab) -> Evidence:
    """Measure the angle bound, and descent under bounded errors."""
    first, second, final = [], [], []
    figure: Figure | None = None
    for seed in lab.seeds:
        r, cosine = _random_pairs(seed)
        # d of the proposition follows from r = (1 - d)/(1 + d).
        first.append(float((cosine < (1 - r) / (1 + r) - 1e-12).sum()))
        second.append(float((cosine < np.sqrt(1 - r**2) - 1e-12).sum()))
        final.append(_disturbed_descent(seed))
        if figure is None:
            grid = np.linspace(0, 1, 200)
            bounds = {
                "(1 − r)/(1 + r)": (1 - grid) / (1 + grid),
                "√(1 − r²)": np.sqrt(1 - grid**2),
            }
            figure = scatter_bound(
                r[:4000],
                cosine[:4000],
                grid,
                bounds,
                xlabel="relative error r",
                ylabel="cosine with the true gradient",
            )
    measured = {
        "violations of cos >= d": first,
        "violations of cos >= sqrt(1 - r^2)": second,
        "final gradient norm": final,
    }
    return Evidence(measured, figure)


def _random_pairs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    size = rng.uniform(0, 1, 20_000)
    gradient, error = rng.standard_normal((2, 20_000, 4))
    # Half of the errors point against the gradient, where the bound is tight.
    error[::2] -= 2 * gradient[::2]
    norm = np.linalg.norm(gradient, axis=1)
    error *= (size * norm / np.linalg.norm(error, axis=1))[:, None]
    used = gradient + error
    dots = (gradient * used).sum(1)
    return size, dots / (norm * np.linalg.norm(used, axis=1))


def _disturbed_descent(seed: int) -> float:
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    y = torch.tanh(x @ torch.randn(3, 1, generator=generator, dtype=torch.float64))
    w, v = (
        torch.randn(m, n, generator=generator, dtype=torch.float64).requires_grad_()
        for m, n in ((3, 3), (3, 1))
    )
    norm = np.inf
    for _ in range(60_000):
        loss = 0.5 * (torch.tanh(x @ w) @ v - y).square().mean()
        gradients = torch.autograd.grad(loss, (w, v))
        flat = np.concatenate([g.numpy().ravel() for g in gradients])
        norm = float(np.linalg.norm(flat))
        if norm < 1e-6:
            break
        error = rng.standard_normal(flat.shape)
        used = flat + 0.5 * norm * error / np.linalg.norm(error)
        with torch.no_grad():
            w -= 0.5 * torch.from_numpy(used[:9].reshape(3, 3))
            v -= 0.5 * torch.from_numpy(used[9:].reshape(3, 1))
    return norm
