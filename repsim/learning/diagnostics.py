"""How far the error that a rule uses is from the true one, layer by layer."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from repsim.core.modes import kept_modes
from repsim.learning.rule import Rule

NAMES = {
    "error_cosine": "cosine of the used and the true error, all examples as one vector",
    "error_cosine_per_sample": "the same for each example, averaged over examples",
    "error_relative_norm": "norm of the used error over that of the true one",
    "error_relative_distance": "norm of their difference over that of the true one",
    "error_sign_agreement": "share of equal signs, where neither error is zero",
    "parameter_cosine": "cosine of the block's parameter gradients under the two",
    "curl": "asymmetry |A - A'| / |A + A'| of the predictor's derivative; 0 if a loss",
}
"""What each diagnostic is."""


def error_diagnostics(rule: Rule, x: Tensor, y: Tensor) -> dict[str, dict[str, float]]:
    r"""Compare the used errors with the true ones at every block's output.

    The cosine of *parameter* gradients is the one that decides whether an update
    descends: where :math:`\|e\| \le r \|g\|` for the gradient g and the error e in
    it, the cosine is at least :math:`\sqrt{1 - r^2}`.

    Parameters
    ----------
    rule : Rule
        The rule; nothing of it is changed.
    x, y : Tensor
        Some examples, as in `Rule.step`.

    Returns
    -------
    dict
        Diagnostic → block → value (see `NAMES`); NaN where an error is zero or a
        block has no parameters or predictor.

    Raises
    ------
    ValueError
        If shapes or labels are wrong.

    References
    ----------
    Czarnecki et al. 2017, arXiv:1703.00522, Proposition 2.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3], classes=2, seed=0)
    >>> rule = repsim.learning.make("bp", net)
    >>> found = error_diagnostics(rule, torch.rand(8, 4), torch.arange(8) % 2)
    >>> round(found["error_cosine"]["hidden_1"], 6)
    1.0
    """
    errors = rule.errors(x, y)
    diagnostics: dict[str, dict[str, float]] = {name: {} for name in NAMES}
    for name, (used, true) in errors.items():
        for measure, value in compared(used, true).items():
            diagnostics[measure][name] = value
    diagnostics["parameter_cosine"] = _parameter_cosines(rule, x, errors)
    diagnostics["curl"] = dict.fromkeys(rule.blocks, float("nan")) | rule.curls(x, y)
    return diagnostics


def compared(used: Tensor, true: Tensor) -> dict[str, float]:
    """Return the diagnostics of one layer's errors."""
    a = used.detach().double().reshape(len(used), -1)
    b = true.detach().double().reshape(len(true), -1)
    lengths = a.norm(dim=1) * b.norm(dim=1)
    each = ((a * b).sum(1) / lengths)[lengths > 0]
    both = (a != 0) & (b != 0)
    return {
        "error_cosine": _ratio((a * b).sum(), a.norm() * b.norm()),
        "error_cosine_per_sample": _ratio(each.sum(), torch.tensor(float(len(each)))),
        "error_relative_norm": _ratio(a.norm(), b.norm()),
        "error_relative_distance": _ratio((a - b).norm(), b.norm()),
        "error_sign_agreement": _ratio(((a * b) > 0)[both].sum(), both.sum()),
    }


def _ratio(a: Tensor, b: Tensor) -> float:
    return float(a) / float(b) if float(b) else float("nan")


def _parameter_cosines(
    rule: Rule, x: Tensor, errors: dict[str, tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """Pull both errors through each block alone, from the input it really gets."""
    cosines = {}
    with kept_modes(rule.network, training=False):
        h = x
        for name, block in rule.blocks.items():
            parameters = [p for p in block.parameters() if p.requires_grad]
            with torch.enable_grad():
                h = block(rule.batch_checks.own(name, h.detach()))
            pulled = [_gradient(h, parameters, error) for error in errors[name]]
            cosines[name] = compared(*pulled)["error_cosine"]
    return cosines


def _gradient(h: Tensor, parameters: Sequence[nn.Parameter], error: Tensor) -> Tensor:
    """Return all parameters' gradients for one error as a single row."""
    if not h.requires_grad or not parameters:
        return torch.zeros(1, 1)
    grads = torch.autograd.grad(
        h, parameters, error, retain_graph=True, allow_unused=True
    )
    return torch.cat([g.reshape(1, -1) for g in grads if g is not None], 1)


def curl(jacobians: Iterable[Tensor]) -> float:
    """Return ‖J − Jᵀ‖/‖J + Jᵀ‖ over some derivatives of a predictor."""
    odd, even = torch.zeros((), dtype=torch.float64), torch.zeros(())
    for jacobian in jacobians:
        j = jacobian.detach().double()
        odd = odd + (j - j.T).square().sum()
        even = even + (j + j.T).square().sum()
    return _ratio(odd.sqrt(), even.sqrt())
