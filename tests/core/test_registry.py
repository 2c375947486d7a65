"""Rules, measures, networks and data sets: one behaviour for names."""

from collections.abc import Callable

import pytest

from repsim.core.registry import Registry


def _one() -> int:
    return 1


def _two() -> int:
    return 2


def test_names_in_order_and_entries() -> None:
    things: Registry[Callable[[], int]] = Registry("thing")
    things.register("b", _two)
    things.register("a", _one)
    assert things.names() == ["b", "a"] == list(things)
    assert things.get("a") is _one
    assert "a" in things
    assert "c" not in things


def test_the_same_function_again_and_another_one() -> None:
    things: Registry[Callable[[], int]] = Registry("thing")
    things.register("a", _one)
    things.register("a", _one)  # the cell of a notebook, run again
    with pytest.raises(ValueError, match="to be free, but got 'a', which is the thing"):
        things.register("a", _two)
    assert things.get("a") is _one
    things.unregister("a")
    things.register("a", _two)
    assert things.get("a") is _two


def test_what_is_refused() -> None:
    things: Registry[Callable[[], int]] = Registry("thing")
    with pytest.raises(TypeError, match="`function` to be callable, but got int"):
        things.register("a", 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a thing's `name` to be a string, but got int"):
        things.register(3, _one)  # type: ignore[arg-type]
    for name in ("", "a:b", "a b", "a/b", "a,b", "a=b"):
        with pytest.raises(
            ValueError, match="Expected a thing's `name` without any of"
        ):
            things.register(name, _one)
    things.register("alpha", _one)
    for function in (things.get, things.unregister):
        with pytest.raises(ValueError, match="Did you mean 'alpha'"):
            function("alpah")
