r"""Synthetic gradients through time: a window is learnt from, the future is predicted.

From the papers: a linear predictor stands for the gradient that the losses after a
window would send back, and is trained towards what the next window does send back, or
towards its λ-return by eligibility traces (accumulate BP(λ)). Ours: traces over whole
windows, of which a window of one step is the paper's case, and a predictor from zero.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from repsim.core.messages import number, require, unknown, whole
from repsim.learning.losses import LossFunction, check_labels, resolve
from repsim.learning.optimisers import Factory, make_optimizer, rate
from repsim.learning.rule_info import Diverged, Info

Update = Literal["window", "sequence"]
UPDATES = ("window", "sequence")


class RecurrentSyntheticGradient:
    r"""Train a recurrent cell window by window, the gradient beyond predicted.

    With :math:`h_w` the state at the end of window w, :math:`L_w` the losses in it and
    :math:`S(h) = h A + C` the predictor, zero behind the last window:

    .. math::
        \Delta \theta \propto - \nabla_\theta
        \big( L_w + \langle S(h_w), h_w \rangle \big), \qquad
        \delta_w = \nabla_{h_w} L_{w+1}
        + S(h_{w+1}) \frac{\partial h_{w+1}}{\partial h_w} - S(h_w)

    .. math::
        \Delta \phi \propto \delta_w E_w, \qquad
        E_w = \lambda \frac{\partial h_w}{\partial h_{w-1}} E_{w-1}
        + \frac{\partial S(h_w)}{\partial \phi}

    so that S learns the λ-return of what later windows send back: with λ = 0 what the
    next window sends, with its own prediction at the end; with λ = 1 the gradient of
    all losses to come. No window waits for a later one. Traces take memory in the cube
    of the state's size for every example and time in its fourth power; λ = 0 has none.

    Parameters
    ----------
    cell : nn.Module
        ``cell(x, state) -> state`` on (batch, features) and (batch, units), with an
        attribute `hidden_size`: `nn.RNNCell`, `nn.GRUCell`, `nn.LSTMCell` (whose
        state is h and c side by side), or one's own.
    readout : nn.Module
        From h, (batch, units), to outputs, (batch, classes).
    window : int
        Steps of time that are differentiated at once, at least 1.
    trace : float or None
        λ, from 0 to 1; None is truncated backpropagation, nothing predicted.
    update : "window" or "sequence"
        When parameters move: after each window, or once, by the sum over windows.
    loss_at : "every" or "last"
        Whether every step has a label, or the sequence has one.
    loss : str or callable
        As in `Rule`.
    lr : float
        Learning rate of cell and readout.
    sg_lr : float or None
        Learning rate of the predictor; None is `lr`.
    optimizer : callable or None
        As in `Rule`.

    Attributes
    ----------
    synthesiser : nn.Linear or None
        The predictor S, zero at first.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument has a wrong value.

    References
    ----------
    Jaderberg et al. 2017, arXiv:1608.05343, section 3.1; Pemberton and Costa 2024,
    BP(λ): Online Learning via Synthetic Gradients, arXiv:2401.07044.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> cell, readout = nn.RNNCell(3, 8), nn.Linear(8, 2)
    >>> rule = RecurrentSyntheticGradient(cell, readout, window=2, trace=0.5)
    >>> losses = rule.step(torch.rand(16, 6, 3), torch.zeros(16, 6, dtype=torch.long))
    >>> sorted(losses)
    ['loss', 'sg_loss']
    """

    info: ClassVar[Info] = Info(
        method="BP(lambda), recurrent",
        error="S(h_w) at a window's end, the exact derivative inside of it",
        learned="S, on the lambda-return of what later windows send back",
        update_locked=False,
        backward_locked=False,
        sees_error=False,
        source="Jaderberg et al. 2017; Pemberton and Costa 2024; traces over windows "
        "ours",
    )

    def __init__(
        self,
        cell: nn.Module,
        readout: nn.Module,
        *,
        window: int = 1,
        trace: float | None = 0.0,
        update: Update = "window",
        loss_at: Literal["every", "last"] = "every",
        loss: str | LossFunction = "cross_entropy",
        lr: float = 1e-3,
        sg_lr: float | None = None,
        optimizer: Factory | None = None,
    ) -> None:
        require(isinstance(cell, nn.Module), cell, "`cell` to be a module")
        require(isinstance(readout, nn.Module), readout, "`readout` to be a module")
        units = getattr(cell, "hidden_size", None)
        if units is None:
            msg = (
                "Expected `cell` to have an attribute `hidden_size`, the units of its "
                f"state, but got {type(cell).__name__} without; set it."
            )
            raise ValueError(msg)
        for name, value, known in (
            ("update", update, UPDATES),
            ("loss_at", loss_at, ("every", "last")),
        ):
            if value not in known:
                raise ValueError(unknown(name, value, known))
        self.cell, self.readout = cell, readout
        self.units = whole(units, "hidden_size", 1)
        self.parts = 2 if isinstance(cell, nn.LSTMCell) else 1
        self.window, self.update = whole(window, "window", 1), update
        self.trace, self.loss_at = _trace(trace), loss_at
        self.loss_name, self.loss = resolve(loss)
        trained = [p for m in (cell, readout) for p in m.parameters()]
        self.trained = [p for p in trained if p.requires_grad]
        self.optimizers = {"network": make_optimizer(self.trained, lr, optimizer)}
        self.synthesiser: nn.Linear | None = None
        if self.trace is not None:
            size = self.units * self.parts
            self.synthesiser = nn.Linear(size, size).to(self.trained[0])
            for p in self.synthesiser.parameters():
                nn.init.zeros_(p)
            self.optimizers["synthesiser"] = make_optimizer(
                self.synthesiser.parameters(),
                lr if sg_lr is None else rate(sg_lr, "sg_lr"),
                optimizer,
            )

    def step(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Learn from sequences, from a state of zeros.

        Parameters
        ----------
        x : Tensor
            Inputs, (batch, time, features).
        y : Tensor
            Labels of every step, (batch, time) integers or (batch, time, outputs)
            numbers; without the axis of time where only the last step has one.

        Returns
        -------
        dict
            `loss`, summed over time and averaged over the batch; `sg_loss`, the mean
            over batch and windows of ‖δ‖², where something is predicted.

        Raises
        ------
        ValueError
            If x or y has a wrong shape.
        Diverged
            If the loss of a window is NaN or infinite.
        """
        y = self._checked(x, y)
        losses: list[Tensor] = []
        errors: list[Tensor] = []
        for loss, error in self._windows(x, y):
            if not torch.isfinite(loss):
                msg = (
                    f"Expected a finite loss, but got {float(loss)} in window "
                    f"{len(losses)}; try a smaller learning rate."
                )
                raise Diverged(msg)
            losses.append(loss)
            errors += [] if error is None else [error]
            if self.update == "window":
                self._move()
        if self.update == "sequence":
            self._move()
        told = {"loss": torch.stack(losses).sum()}
        if self.synthesiser is not None:
            zero = told["loss"].new_zeros(())
            told["sg_loss"] = torch.stack(errors).mean() if errors else zero
        return told

    def accumulate(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Add the gradients of sequences and move nothing; see `step`.

        Parameters
        ----------
        x, y : Tensor
            As in `step`.

        Returns
        -------
        dict
            `loss`.

        Raises
        ------
        ValueError
            If x or y has a wrong shape.
        """
        losses = [loss for loss, _ in self._windows(x, self._checked(x, y))]
        return {"loss": torch.stack(losses).sum()}

    def state_dict(self) -> dict[str, Any]:
        """Return parameters and what the optimisers keep.

        Returns
        -------
        dict
            For `load_state_dict`.
        """
        return {
            **{name: m.state_dict() for name, m in self._modules().items()},
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take parameters and optimisers back.

        Parameters
        ----------
        state : mapping
            Of `state_dict`.

        Raises
        ------
        ValueError
            If the state is of another rule.
        """
        modules = self._modules()
        wanted = {*modules, "optimizers"}
        if set(state) != wanted:
            msg = (
                f"Expected a state of {', '.join(sorted(wanted))}, but got "
                f"{', '.join(sorted(map(str, state)))}; make the same rule first."
            )
            raise ValueError(msg)
        for name, module in modules.items():
            module.load_state_dict(state[name])
        for name, optimizer in self.optimizers.items():
            # Torch takes the state's tensors themselves: two rules would share them.
            optimizer.load_state_dict(copy.deepcopy(state["optimizers"][name]))

    def _modules(self) -> dict[str, nn.Module]:
        named: dict[str, nn.Module] = {"cell": self.cell, "readout": self.readout}
        return named | ({"synthesiser": self.synthesiser} if self.synthesiser else {})

    def _checked(self, x: Tensor, y: Tensor) -> Tensor:
        """Return labels that fit, (batch, time, …) or (batch, …)."""
        if x.ndim != 3 or 0 in x.shape[:2]:
            msg = (
                "Expected `x` of shape (batch, time, features), at least one of each, "
                f"but got {tuple(x.shape)}."
            )
            raise ValueError(msg)
        lead = tuple(x.shape[: 2 if self.loss_at == "every" else 1])
        if tuple(y.shape[: len(lead)]) != lead:
            msg = (
                f"Expected labels `y` that begin with the axes {lead} of `x`, because "
                f"loss_at={self.loss_at!r}, but got {tuple(y.shape)}."
            )
            raise ValueError(msg)
        return y

    def _windows(self, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Add a window's gradients; yield its loss and the mean ‖δ‖² at its start."""
        count, steps = x.shape[:2]
        state = x.new_zeros(count, self.units * self.parts)
        predicted = trace = None
        for begin in range(0, steps, self.window):
            end = min(begin + self.window, steps)
            start = state.detach().requires_grad_()
            with torch.enable_grad():
                state, loss = self._run(start, x[:, begin:end], y, begin, steps)
            more = self.synthesiser is not None and end < steps
            beyond = self._predict(state.detach()) if more else None
            jacobian = None
            if more and self.trace and trace is not None:
                jacobian = _jacobian(state, start)
            # Sums over examples of per-sample errors: S is one example's gradient.
            total = loss * count
            if beyond is not None:
                total = total + (beyond * state).sum()
            sent = self._differentiate(total, start, count)
            error = None
            if predicted is not None and trace is not None:
                delta = sent - predicted
                self._learn(delta, trace, count)
                error = delta.square().sum() / count
            if more:
                trace = self._traced(state.detach(), trace, jacobian)
            predicted = beyond
            yield loss.detach(), error

    def _run(
        self, state: Tensor, x: Tensor, y: Tensor, begin: int, steps: int
    ) -> tuple[Tensor, Tensor]:
        """Return the state behind a window, and its losses, means over the batch."""
        loss = x.new_zeros(())
        for i in range(x.shape[1]):
            both = state.tensor_split(self.parts, 1)
            made = self.cell(x[:, i], both if self.parts > 1 else state)
            state = torch.cat(made, 1) if self.parts > 1 else made
            if self.loss_at == "last" and begin + i < steps - 1:
                continue
            output = self.readout(state[:, : self.units])
            label = y[:, begin + i] if self.loss_at == "every" else y
            label = check_labels(label, len(x), output.shape[-1])
            loss = loss + self.loss(output, label)
        return state, loss

    def _predict(self, state: Tensor) -> Tensor:
        with torch.no_grad():
            predicted: Tensor = self.synthesiser(state)  # type: ignore[misc]
        return predicted

    def _differentiate(self, total: Tensor, start: Tensor, count: int) -> Tensor:
        """Add to the network's gradients; return what is sent back to the start."""
        if not total.requires_grad:  # No label in this window, and nothing predicted.
            return torch.zeros_like(start)
        grads = torch.autograd.grad(total, [start, *self.trained], allow_unused=True)
        for p, grad in zip(self.trained, grads[1:], strict=True):
            if grad is not None:
                grad = grad / count
                p.grad = grad if p.grad is None else p.grad + grad
        return torch.zeros_like(start) if grads[0] is None else grads[0]

    def _traced(
        self, state: Tensor, trace: Tensor | None, jacobian: Tensor | None
    ) -> Tensor:
        """Return E at a window's end: (batch, units + 1), or with λ a cube of units.

        E[n, k, i, j] is the effect of S's number (i, j) on the state's unit k.
        """
        seen = torch.cat([state, state.new_ones(len(state), 1)], 1)
        if not self.trace:
            return seen
        eye = torch.eye(state.shape[1]).to(state)
        here = torch.einsum("ki,nj->nkij", eye, seen)
        if trace is None or jacobian is None:
            return here
        return here + self.trace * torch.einsum("nkm,nmij->nkij", jacobian, trace)

    def _learn(self, delta: Tensor, trace: Tensor, count: int) -> None:
        """Add the gradient of the mean of ‖S − return‖², (units,) by (units + 1,)."""
        form = "ni,nj->ij" if trace.ndim == 2 else "nk,nkij->ij"
        grad = -2 / count * torch.einsum(form, delta, trace)
        layer = self.synthesiser
        if layer is None:
            return
        for p, g in ((layer.weight, grad[:, :-1]), (layer.bias, grad[:, -1])):
            p.grad = g.clone() if p.grad is None else p.grad + g

    def _move(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def _trace(trace: float | None) -> float | None:
    """Return λ, or refuse what is none."""
    if trace is None:
        return None
    value = number(trace, "trace")
    if not 0 <= value <= 1:
        msg = f"Expected `trace` between 0 and 1, or None, but got {trace}."
        raise ValueError(msg)
    return value


def _jacobian(state: Tensor, start: Tensor) -> Tensor:
    """Return the derivative of every example's state by its start, (batch, to, from).

    Examples do not touch each other, so one backward pass serves a unit of them all.
    """
    rows = torch.eye(state.shape[1]).to(state)
    rows = rows[:, None].expand(-1, len(state), -1)
    (found,) = torch.autograd.grad(
        state, start, rows, retain_graph=True, is_grads_batched=True
    )
    return found.movedim(0, 1)
