"""What a user's own code in a study does: another one under its name is told."""

from collections.abc import Iterator
from typing import Any

from repsim.core.code_hashes import loaded_hash, ships
from repsim.learning.factory import rules
from repsim.studies.materials import imported, load, network_factory
from repsim.studies.spec import Spec


def own_code(spec: Spec) -> dict[str, str]:
    """Return hashes of networks, rules, losses and metrics that do not ship.

    What ships is told by its version. Data are told by their values.
    """
    return {
        name: loaded_hash(thing) for name, thing in _given(spec) if not ships(thing)
    }


def changed(now: dict[str, str], before: dict[str, str]) -> str | None:
    """Return the name of what is another one now; of another Python's nothing."""

    def python(made: str) -> str:
        return made.partition(":")[0]

    for name in now:
        there = before.get(name, now[name])
        if there != now[name] and python(there) == python(now[name]):
            return name
    return None


def _given(spec: Spec) -> Iterator[tuple[str, Any]]:
    yield f"network {spec.network!r}", network_factory(spec)
    for rule in dict.fromkeys(condition.rule for condition in spec.parsed):
        if rule in rules:  # one of an earlier call may be unknown in this one
            yield f"rule {rule!r}", rules.get(rule)
    for what in ("loss", "metric"):
        given = spec.objects.get(what) or getattr(spec, what)
        if what == "metric" and given is None and spec.data is not None:
            given = load(spec)[0].attrs.get("metric")
        if isinstance(given, str):
            given = imported(given, what) if ":" in given else None
        if given is not None:
            yield f"{what} {getattr(spec, what) or 'of the data'!r}", given
