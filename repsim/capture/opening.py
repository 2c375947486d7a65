"""Where the moments of a session go: into memory, a store, or a share of a store."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from repsim.capture.batches import Batch
from repsim.capture.distributed import Part, StoreRanks
from repsim.capture.header import Header
from repsim.capture.session import Session
from repsim.capture.shares import divisible, rows_of
from repsim.datasets.store.memory import MemorySink
from repsim.datasets.store.places import locate, prepare
from repsim.datasets.store.resumption import resumed_writer
from repsim.datasets.store.sinks import Nowhere, Sink
from repsim.datasets.store.together import opened_together
from repsim.datasets.store.writer import Writer
from repsim.datasets.store.zarr_format import Codec


class Place:
    """Where a recording shall lie, and how it is opened there.

    With `due`, the schedule, what lies there is continued after `start` updates.
    """

    def __init__(
        self,
        store: Any,
        group: str | None,
        storage_options: Mapping[str, Any] | None,
        *,
        due: Callable[[int], bool] | None = None,
        start: int | None = None,
        codec: Codec | None = None,
    ) -> None:
        self._store, self._group, self._options = store, group, storage_options
        self._due, self._start, self._codec = due, start, codec
        if store is None and group is not None:
            msg = f"Expected `store` along with `group`, but got only {group!r}."
            raise ValueError(msg)
        if store is None and (due is not None or codec not in (None, Codec())):
            msg = "Expected `store` along with resume=True or `level`."
            raise ValueError(msg)
        self.path = None if store is None else locate(store, group, storage_options)[0]

    def sink(
        self, part: Part, session: Session, head: Header, examples: int | None
    ) -> Sink:
        """Return what one process alone, or none, writes into."""
        if self.path is None:
            return MemorySink(examples, head.attrs)
        if part != "writes":
            return Nowhere()
        return self._writer(session, head, examples)

    def shared(
        self,
        session: Session,
        head: Header,
        batches: Sequence[Batch] | None,
        examples: int | None,
    ) -> tuple[Sink, Sequence[Batch] | None]:
        """Return what this rank writes its share into, and the batches of it.

        Where the batches cannot be divided all ranks pass them, and the first writes.
        """
        assert self.path is not None
        whole = batches is None or session.sequences_first or not divisible(batches)
        sink = opened_together(
            StoreRanks(),
            self.path,
            lambda make: self._writer(session, head, examples, make),
            rows=None if whole else examples,
            same={
                "inputs": head.attrs.get("inputs_sha256"),
                "layers": list(session.choices),
            },
            codec=self._codec,
        )
        if sink.span is not None and batches is not None:
            head.cut(sink.span)
            session.cut(sink.span, batches)
            batches = rows_of(batches, sink.span)
        return sink, batches

    def _writer(
        self,
        session: Session,
        head: Header,
        examples: int | None,
        make: Callable[..., Writer] = Writer,
    ) -> Writer:
        path, root = locate(self._store, self._group, self._options)
        if self._due is None:
            prepare(path, root)
            return make(path, examples=examples, attrs=head.attrs, codec=self._codec)
        return resumed_writer(
            path,
            root,
            start=self._start,
            due=self._due,
            choices=list(session.choices),
            attrs=head.attrs,
            examples=examples,
            codec=self._codec,
            make=make,
        )
