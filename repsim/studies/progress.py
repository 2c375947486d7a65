"""One bar over the updates of all networks, whichever process makes them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any
from zlib import crc32

from repsim.core.bars import progress_bar


class ProgressFiles:
    """Files in which workers say how far they are, summed into one bar."""

    def __init__(self, folder: Path, size: int, bar: Any) -> None:
        self.folder, self.size, self.bar = folder, size, bar
        self.done: set[str] = set()

    def __call__(self, name: str) -> Path:
        """Return the file of one network; its name may hold any sign."""
        return self.folder / f"{crc32(name.encode()):08x}"

    def finished(self, name: str) -> None:
        """Count a network in full."""
        self.done.add(self(name).name)

    def refresh(self) -> None:
        """Read the files and draw the bar."""
        made = 0
        for path in self.folder.iterdir():
            if path.name not in self.done:
                made += int(path.read_text() or 0)
        self.bar.n = min(made + self.size * len(self.done), self.bar.total)
        self.bar.refresh()


@contextmanager
def study_bar(
    cells: int, size: int, out: Path, progress: bool
) -> Iterator[ProgressFiles]:
    """Show one bar over all updates of all cells, whichever process makes them."""
    folder = out / ".progress"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    stop = Event()
    with progress_bar(
        total=cells * size, unit="update", progress=progress and cells > 0
    ) as bar:
        files = ProgressFiles(folder, size, bar)

        def watch() -> None:
            while not stop.wait(0.5):
                files.refresh()

        watcher = Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield files
        finally:
            stop.set()
            watcher.join()
            files.refresh()
            shutil.rmtree(folder, ignore_errors=True)
