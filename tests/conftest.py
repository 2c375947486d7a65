"""What every test has: seeded generators, a quiet backend, closed figures."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import settings
from matplotlib.figure import Figure

matplotlib.use("agg")
# No test hangs on how fast a machine is.
settings.register_profile("repsim", deadline=None)
settings.load_profile("repsim")


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded NumPy generator."""
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@contextmanager
def _blank_figures() -> Iterator[None]:
    save = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Figure, "savefig", lambda _, *to, **how: save(Figure((1, 1)), *to, **how)
        )
        yield


@pytest.fixture(scope="session")
def blank_figures() -> Callable[[], AbstractContextManager[None]]:
    """In its context figures are saved small and empty: for what is around them."""
    return _blank_figures


@pytest.fixture
def undrawn() -> Iterator[None]:
    """Run a test without drawing what it saves."""
    with _blank_figures():
        yield


@contextmanager
def _growth() -> Iterator[Callable[[], int]]:
    # Not tracemalloc: to stop it while a thread allocates ends the process (Python
    # 3.11; https://github.com/python/cpython/issues/128679).
    status, least = Path("/proc/self/status"), 0

    def told(name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", status.read_text())
        assert found is not None
        return 1024 * int(found[1])

    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        least = told("VmHWM")
    except OSError:
        yield lambda: 0
    else:
        yield lambda: told("VmHWM") - least


@pytest.fixture(scope="session")
def growth() -> Callable[[], AbstractContextManager[Callable[[], int]]]:
    """In its context is told by how many bytes the process grew at most.

    Zero where the system does not tell. Warm up first: libraries count, too.
    """
    return _growth


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, Any]]:
    """Return what fsspec needs for a bucket on a server of this machine."""
    pytest.importorskip("s3fs")
    from repsim.datasets.store.places import place_of

    server = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    options = {"key": "k", "secret": "s", "endpoint_url": f"http://{host}:{port}"}
    place_of("s3://bucket", options).fs.mkdir("bucket")  # type: ignore[attr-defined]
    yield options
    running.stop()


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out what needs the network, an accelerator or patience unless asked."""
    # The longest one first, or a worker waits for it at the end.
    items.sort(key=lambda item: item.name != "test_types_are_strict")
    asked = config.getoption("markexpr")
    for item in items:
        for marker in ("network", "slow"):
            if item.get_closest_marker(marker) and marker not in asked:
                item.add_marker(pytest.mark.skip(reason=f"ask with -m {marker}"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no accelerator here"))
