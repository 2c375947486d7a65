"""What a recording says of itself beside its layers: ids, labels, masks."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from repsim.capture.batches import as_array
from repsim.datasets.store.attributes import coordinate


class Header:
    """Attributes, and the coordinates on `example`."""

    def __init__(self, labels: Any, examples: Any, attrs: dict[str, Any]) -> None:
        self._labels = None if labels is None else as_array(labels)
        self._examples = None if examples is None else as_array(examples)
        self.attrs = attrs
        self._warned = False

    def cut(self, rows: slice) -> None:
        """Keep the ids and labels of some of the examples."""
        if self._examples is None:
            self._examples = np.arange(rows.start, rows.stop)
        else:
            self._examples = self._examples[rows]
        if self._labels is not None:
            self._labels = self._labels[rows]

    def coords(
        self,
        rows: int,
        labels: Sequence[Any],
        masks: Mapping[str, np.ndarray],
        tokens: Sequence[np.ndarray] | None,
        widths: Collection[int],
    ) -> dict[str, np.ndarray]:
        """Return the coordinates of so many examples, after a check of their lengths.

        `labels` and `tokens` (which tokens are rows) come batch by batch; `widths` are
        the numbers of tokens that layers have.
        """
        ids = np.arange(rows) if self._examples is None else self._examples
        _check_length("examples", ids, rows)
        if ids.dtype.kind not in "iu":
            msg = (
                "Expected `examples` to hold integers, the examples' ids in the source "
                f"data, but got {ids.dtype}."
            )
            raise TypeError(msg)
        coords = {"example": ids.astype(np.int64)}
        label = self._label(rows, labels, widths)
        if label is not None:
            coords["label"] = coordinate("labels", label)
        if tokens is None:
            return {**coords, **masks}
        parts = [np.argwhere(t) for t in tokens]
        starts = np.cumsum([0, *(len(t) for t in tokens)])
        sequence = np.concatenate(
            [p[:, 0] + s for p, s in zip(parts, starts, strict=False)]
        )
        position = np.concatenate([p[:, 1] for p in parts])
        out = {"example": np.arange(len(sequence), dtype=np.int64)}
        if label is not None:
            where = (sequence, position) if label.ndim == 2 else sequence
            out["label"] = coords["label"][where]
        out["sequence"] = coords["example"][sequence]
        return {**out, "position": position}

    def _label(
        self, rows: int, batches: Sequence[Any], widths: Collection[int]
    ) -> np.ndarray | None:
        given = self._labels
        if given is None:
            parts = [None if b is None else as_array(b) for b in batches]
            there = [p for p in parts if p is not None and p.size]
            if not there or len(there) < len([p for p in parts if p is None or p.size]):
                return None
            if len({p.shape[1:] for p in there}) > 1:
                return None
            given = np.concatenate(there)
        if given.ndim == 2 and given.shape[0] == rows:
            if given.shape[1] == 1:
                return np.asarray(given[:, 0])
            if given.shape[1] in widths:
                return given
            if _is_one_hot(given):
                return np.asarray(given.argmax(1))
        if given.ndim != 1 and self._labels is None:
            self._warn(given.shape, tokens=bool(given.dtype.kind in "iu"))
            return None
        _check_length("labels", given, rows)
        return given

    def _warn(self, shape: tuple[int, ...], *, tokens: bool) -> None:
        # Targets of a language model are what its loss wants, not what it is told by.
        if not self._warned and not tokens:
            self._warned = True
            warnings.warn(
                f"Labels of shape {shape} are not kept as `label`: it takes one value "
                "for each example, one for each token, or one-hot rows.",
                UserWarning,
                stacklevel=4,
            )


def _is_one_hot(values: np.ndarray) -> bool:
    if values.dtype.kind not in "iufb":
        return False
    return bool(np.isin(values, (0, 1)).all() and (values.sum(1) == 1).all())


def _check_length(what: str, values: np.ndarray, rows: int) -> None:
    if values.shape != (rows,):
        msg = (
            f"Expected `{what}` to have one value for each of {rows} examples, "
            f"but got shape {values.shape}."
        )
        raise ValueError(msg)
