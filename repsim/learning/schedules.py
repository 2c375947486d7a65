"""In which order segments work, and how late their messages are.

A schedule is an object with `step(rule, x, y)`. Set `rule.schedule`, and `rule.step`
follows it; None is the frame's own pass, forward and back once.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from repsim.core.messages import number, whole
from repsim.learning.optimisers import make_optimizer
from repsim.learning.randomness import seeded
from repsim.learning.segments import Segment, forget

if TYPE_CHECKING:
    from repsim.learning.rule import Rule

__all__ = [
    "Delayed",
    "Reversed",
    "Schedule",
    "Stochastic",
    "Unlocked",
    "UpdateUnlocked",
]

Losses = dict[str, Tensor]


class Schedule:
    """All forward, then error and update from the output down: `rule.step` in parts.

    Attributes
    ----------
    name : str
    unlocks : tuple of str
        Locks that the schedule does not keep, so that a rule must not have them:
        "update" (a segment is updated before those above have run forward), "backward"
        (before those above have run backward).
    cost : str
        What it costs beside a step, and what it locks.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3, 3], classes=2, seed=0)
    >>> rule = repsim.learning.make("sg", net)
    >>> rule.schedule = Schedule()
    >>> sorted(rule.step(torch.rand(8, 4), torch.arange(8) % 2))
    ['loss', 'sg_loss']
    """

    name = "locked"
    unlocks: tuple[str, ...] = ()
    cost = "one forward and one backward pass; forward, update and backward locked"

    def step(self, rule: "Rule", x: Tensor, y: Tensor) -> Losses:
        """Make one update of every segment.

        Parameters
        ----------
        rule : Rule
            The rule.
        x, y : Tensor
            As `Rule.step` takes them.

        Returns
        -------
        dict
            The segments' losses, summed by name.

        Raises
        ------
        ValueError
            If the rule has a lock that the schedule does not keep.
        """
        y = rule.check(x, y)
        self.refuse(rule)
        losses: Losses = {}
        self.run(rule, x, y, losses)
        rule.check_finite(x, losses)
        rule.steps += 1
        return losses

    def refuse(self, rule: "Rule") -> None:
        """Refuse a rule with a lock that the schedule does not keep."""
        info = rule.info
        locked = {"update": info.update_locked, "backward": info.backward_locked}
        needs = [lock for lock in self.unlocks if locked[lock]]
        if self.unlocks and (needs or rule.needs_vjp):
            lock = needs[0] if needs else "backward"
            msg = (
                f"Expected a rule without {lock} lock for schedule {self.name!r}, but "
                f"rule {rule.name!r} is {lock} locked; sg, dni and local are not."
            )
            raise ValueError(msg)

    def run(self, rule: "Rule", x: Tensor, y: Tensor, losses: Losses) -> None:
        """Let the segments work."""
        segments = rule.segments
        h = x
        for segment in segments:
            h = segment.forward(h)
        top = segments[-1]
        error = top.error(y)
        add(losses, top.losses)
        message = top.backward()
        for segment in segments[-2::-1]:
            segment.error(y, incoming=message, output_error=error)
            message = segment.backward()
            add(losses, segment.losses)
        # Last: some errors differentiate the segment above once more.
        for segment in segments:
            segment.apply()
            segment.forget(0)


class Reversed(Schedule):
    """Updates from the input up: an upper error may not be waited for.

    Messages of this step reach predictors after all segments have been updated.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3, 3], classes=2, seed=0)
    >>> rule = repsim.learning.make("sg", net)
    >>> rule.schedule = Reversed()
    >>> losses = rule.step(torch.rand(8, 4), torch.arange(8) % 2)
    >>> rule.steps
    1
    """

    name = "reversed"
    unlocks = ("backward",)
    cost = "one forward and one backward pass; forward locked, update locked for dfa"

    def run(self, rule: "Rule", x: Tensor, y: Tensor, losses: Losses) -> None:
        """Run all forward, then update from the input up."""
        segments = rule.segments
        h = x
        for segment in segments:
            h = segment.forward(h)
        error = segments[-1].error(y)
        add(losses, segments[-1].losses)
        messages = []
        for segment in segments:
            if segment.above is not None:
                segment.error(y, output_error=error)
            messages.append(segment.update())
            if segment.above is not None:
                add(losses, segment.losses)
        hand_down(segments, messages, losses)


class UpdateUnlocked(Schedule):
    """Every segment is updated before the next one has run forward.

    What is handed on was computed before the update; messages come back afterwards.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3, 3], classes=2, seed=0)
    >>> rule = repsim.learning.make("sg", net)
    >>> rule.schedule = UpdateUnlocked()
    >>> losses = rule.step(torch.rand(8, 4), torch.arange(8) % 2)
    >>> rule.steps
    1
    """

    name = "update_unlocked"
    unlocks = ("update", "backward")
    cost = "one forward and one backward pass; forward locked"

    def run(self, rule: "Rule", x: Tensor, y: Tensor, losses: Losses) -> None:
        """Update on the way up."""
        messages, h = [], x
        for segment in rule.segments:
            h = segment.forward(h)
            messages.append(self.update(segment, y, losses))
        hand_down(rule.segments, messages, losses)

    def update(self, segment: Segment, y: Tensor, losses: Losses) -> Tensor | None:
        """Update one segment by an error of its own making."""
        segment.error(y)
        if segment.above is None:
            add(losses, segment.losses)
        message = segment.update()
        if segment.above is not None:
            add(losses, segment.losses)
        return message


class Stochastic(UpdateUnlocked):
    """As `UpdateUnlocked`, but each segment is updated with a probability.

    Parameters
    ----------
    p_update : float
        Between 0 (excluded) and 1.

    References
    ----------
    Jaderberg et al. 2017, arXiv:1608.05343, section 3.2.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3, 3], classes=2, seed=0)
    >>> rule = repsim.learning.make("sg", net)
    >>> rule.schedule = Stochastic(0.2)
    >>> losses = rule.step(torch.rand(8, 4), torch.arange(8) % 2)
    >>> rule.steps
    1
    """

    name = "stochastic"
    cost = "p_update of the backward passes; forward locked"

    def __init__(self, p_update: float = 0.5) -> None:
        self.p_update = number(p_update, "p_update")
        if not 0 < self.p_update <= 1:
            msg = f"Expected `p_update` above 0 and up to 1, but got {p_update}."
            raise ValueError(msg)

    def run(self, rule: "Rule", x: Tensor, y: Tensor, losses: Losses) -> None:
        """Draw who is updated, from the rule's own generator."""
        segments = rule.segments
        drawn = torch.rand(len(segments), generator=rule.generator) < self.p_update
        messages: list[Tensor | None] = []
        h = x
        for segment, updated in zip(segments, drawn.tolist(), strict=True):
            h = segment.forward(h)
            messages.append(self.update(segment, y, losses) if updated else None)
            if not updated and segment.above is None:
                segment.error(y)
                add(losses, segment.losses)
        hand_down(segments, messages, losses)


class Delayed(UpdateUnlocked):
    """Messages from above arrive some steps late, for the batch they belong to.

    Those on their way are no part of a rule's state: a run that is continued begins
    with none.

    Parameters
    ----------
    delay : int
        Steps, at least 0.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3, 3], classes=2, seed=0)
    >>> rule = repsim.learning.make("sg", net)
    >>> rule.schedule = Delayed(4)
    >>> losses = rule.step(torch.rand(8, 4), torch.arange(8) % 2)
    >>> rule.steps
    1
    """

    name = "delayed"
    cost = "one forward and one backward pass, `delay` batches kept; forward locked"

    def __init__(self, delay: int = 1) -> None:
        self.delay = whole(delay, "delay", 0)

    def run(self, rule: "Rule", x: Tensor, y: Tensor, losses: Losses) -> None:
        """Update on the way up, and let old messages arrive."""
        self._now = rule.steps
        self._late: dict[int, list[Tensor | None]] = getattr(self, "_late", {})
        messages, h = [], x
        for segment in rule.segments:
            h = segment.forward(h, self._now)
            segment.error(y, at=self._now)
            if segment.above is None:
                add(losses, segment.losses)
            messages.append(segment.update(self._now))
            if segment.above is not None:
                add(losses, segment.losses)
        self._late[self._now] = messages
        for at in [at for at in self._late if at <= self._now - self.delay]:
            hand_down(rule.segments, self._late.pop(at), losses, at)


class Unlocked(Schedule):
    """Segments above the first run on inputs that are predicted from the network's.

    A linear model of each segment's input sees x alone and learns to give what the
    segment below then hands on, so that no segment waits for another in any way. The
    models are no part of a rule's state.

    Parameters
    ----------
    input_lr : float or None
        The models' learning rate; None is the rule's.

    References
    ----------
    Jaderberg et al. 2017, arXiv:1608.05343, section 2.1 (synthetic inputs).

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3, 3], classes=2, seed=0)
    >>> rule = repsim.learning.make("sg", net)
    >>> rule.schedule = Unlocked()
    >>> losses = rule.step(torch.rand(8, 4), torch.arange(8) % 2)
    >>> rule.steps
    1
    """

    name = "unlocked"
    unlocks = ("update", "backward")
    cost = "one forward and one backward pass and a model of each input; no lock"

    def __init__(self, input_lr: float | None = None) -> None:
        self.input_lr = input_lr
        self.models: dict[str, nn.Module] = {}

    def _build(self, rule: "Rule") -> None:
        like = next(rule.network.parameters())
        features = torch.Size(rule.batch_checks.input_shape or ()).numel()
        with seeded(rule.seed):
            for segment in rule.segments[:-1]:
                shape = rule.shapes[segment.name]
                linear = nn.Linear(features, torch.Size(shape).numel())
                layers = nn.Flatten(), linear, nn.Unflatten(1, shape)
                self.models[segment.name] = nn.Sequential(*layers).to(like)
        parameters = [p for m in self.models.values() for p in m.parameters()]
        lr = rule.lr if self.input_lr is None else self.input_lr
        self._optimizer = make_optimizer(parameters, lr, rule.factory)

    def run(self, rule: "Rule", x: Tensor, y: Tensor, losses: Losses) -> None:
        """Update every segment from its own idea of its input."""
        if not self.models and len(rule.segments) > 1:
            self._build(rule)
        messages, total = [], x.new_zeros(())
        below: str | None = None
        for segment in rule.segments:
            h = x
            if below is not None:
                with torch.no_grad():
                    h = self.models[below](x)
            out = segment.forward(h)
            segment.error(y)
            if segment.above is None:
                add(losses, segment.losses)
            else:
                total = total + self._fit(segment.name, x, out)
            messages.append(segment.update())
            if segment.above is not None:
                add(losses, segment.losses)
            below = segment.name
        hand_down(rule.segments, messages, losses)
        if self.models:
            self._optimizer.step()
            losses["input_loss"] = total

    def _fit(self, name: str, x: Tensor, out: Tensor) -> Tensor:
        """Add the gradient of one model's squared distance."""
        forget(self.models[name].parameters())
        with torch.enable_grad():
            loss: Tensor = (self.models[name](x) - out).square().mean()
            torch.autograd.backward(loss)
        return loss.detach()


def add(losses: Losses, found: Losses) -> None:
    """Sum losses by name."""
    for name, value in found.items():
        losses[name] = losses[name] + value if name in losses else value


def hand_down(
    segments: list[Segment], messages: list[Tensor | None], losses: Losses, at: int = 0
) -> None:
    """Give every segment what the one above has sent back, and drop the batch."""
    for segment, message in zip(segments[:-1], messages[1:], strict=True):
        if message is not None:
            segment.losses = {}
            segment.learn(message, at)
            add(losses, segment.losses)
    for segment in segments:
        segment.forget(at)


SCHEDULES: dict[str, type[Schedule]] = {
    kind.name: kind
    for kind in (Schedule, Reversed, UpdateUnlocked, Stochastic, Delayed, Unlocked)
}
"""Schedules by name."""


def schedule_rows() -> list[dict[str, Any]]:
    """Return what every schedule unlocks and costs, for the documentation's table."""
    return [
        {"schedule": name, "needs no lock": list(kind.unlocks), "cost": kind.cost}
        for name, kind in SCHEDULES.items()
    ]
