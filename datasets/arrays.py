"""Activations from elsewhere as recordings: arrays, hidden states, responses."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from repsim.core.messages import Misuse
from repsim.core.provenance import repsim_version
from repsim.datasets.recordings import SCHEMA
from repsim.datasets.store.attributes import attribute
from repsim.datasets.store.places import check_name
from repsim.datasets.validation import validate

AXES = {
    2: "example unit",
    3: "example token unit",
    4: "example channel y x",
    5: "example channel z y x",
}
"""What axes mean where nobody says: PyTorch's order."""


def from_arrays(
    arrays: Mapping[str, ArrayLike],
    labels: ArrayLike | None = None,
    examples: ArrayLike | None = None,
    *,
    axes: str | Mapping[str, str] | None = None,
    mask: ArrayLike | None = None,
    steps: ArrayLike | None = None,
    **attrs: Any,
) -> xr.Dataset:
    """Return a recording made of arrays that something else computed.

    Parameters
    ----------
    arrays : mapping of str to array or Tensor
        Layer -> activations, in network order; the first axis is the example.
        (example, unit), (example, token, unit), (example, channel, y, x), or what
        `axes` says.
    labels : array, shape (example,), optional
        A label an example; for labels per token (example, token).
    examples : array of int, shape (example,), optional
        Ids of the examples in their source; 0, 1, 2, … by default. Give them wherever
        recordings of other origin will be compared: rows are aligned by id.
    axes : str or mapping of str to str, optional
        The names of all axes, for all layers or by layer, such as
        ``"token example unit"`` or ``"example y x channel"``.
    mask : array of bool, shape (example, token), optional
        Which tokens count.
    steps : int or array of int, shape (step,), optional
        Numbers of updates: of one moment, or of several, which are then the first axis
        of every array where `axes` does not say ``step``.
    **attrs
        Attributes to keep, such as ``rule="bp", seed=0, dataset="mnist"``.

    Returns
    -------
    Dataset, dims ([step,] example, …)
        A recording, as `repsim.record` (one moment) or a `Recorder` returns it.

    Raises
    ------
    ValueError
        If arrays differ in their examples, an array has no such axes, ids repeat, or
        the values are no numbers.
    TypeError
        If `arrays` is not a mapping.

    Examples
    --------
    >>> import numpy as np, repsim
    >>> run = repsim.from_arrays({"fc": np.eye(4)}, labels=[0, 0, 1, 1], rule="bp")
    >>> dict(run.sizes), run.attrs["layers"]
    ({'example': 4, 'fc_unit': 4}, ['fc'])
    """
    if not isinstance(arrays, Mapping) or not arrays:
        msg = (
            "Expected `arrays` to be a mapping of layer name to array, such as "
            f'{{"fc": x}}, but got {type(arrays).__name__}'
            f"{' without entries' if isinstance(arrays, Mapping) else ''}."
        )
        raise TypeError(msg)
    moments = None if steps is None else _moments(steps)
    over = moments is not None and moments.ndim == 1
    variables: dict[str, xr.Variable] = {}
    for name, values in arrays.items():
        variables[str(name)] = _variable(str(name), values, axes, over=over)
    n = {name: v.sizes["example"] for name, v in variables.items()}
    if len(set(n.values())) > 1:
        said = ", ".join(f"{name!r} {k}" for name, k in n.items())
        msg = (
            f"Expected the same examples in every layer, but got {said}; where another "
            'axis is the example, say so: axes="token example unit".'
        )
        raise ValueError(msg)
    count = next(iter(n.values()))
    coords: dict[str, Any] = {"example": _ids(examples, count)}
    if moments is not None:
        for name, variable in variables.items():
            if over and variable.sizes["step"] != len(moments):
                msg = (
                    f"Expected layer {name!r} to have {len(moments)} `steps` along its "
                    f"axis step, but got {variable.sizes['step']}; name all axes with "
                    'axes="step example unit".'
                )
                raise ValueError(msg)
        coords["step"] = ("step", moments) if over else moments
    for what, given in (("label", labels), ("mask", mask)):
        if given is not None:
            coords[what] = _over_examples(what, given, count)
    if "mask" in coords:
        coords["mask"] = (coords["mask"][0], np.asarray(coords["mask"][1], bool))
    head: dict[str, Any] = {
        "repsim_schema": SCHEMA,
        "repsim_version": repsim_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "complete": 1,
    }
    head |= {key: attribute(key, value) for key, value in attrs.items()}
    run = xr.Dataset(variables, coords, {**head, "layers": list(variables)})
    return validate(run, "the arrays")


def _moments(steps: ArrayLike) -> np.ndarray:
    """Return numbers of updates, ascending."""
    moments = np.asarray(_plain(steps))
    if (
        moments.dtype.kind not in "iu"
        or moments.ndim > 1
        or bool(np.any(np.diff(np.atleast_1d(moments)) <= 0))
    ):
        msg = (
            "Expected `steps` to be whole numbers that ascend, but got "
            f"{moments.dtype} {moments.tolist()}."
        )
        raise ValueError(msg)
    return moments.astype(np.int64)


def _variable(
    name: str, values: Any, axes: str | Mapping[str, str] | None, *, over: bool
) -> xr.Variable:
    """Return one layer with named dims, examples first; float16 and float32 stay."""
    check_name(name)
    array = _numbers(name, values)
    said = axes if axes is None or isinstance(axes, str) else axes.get(name)
    usual = AXES.get(array.ndim - over, "")
    words = (said or (f"step {usual}" if over and usual else usual)).split()
    if over != ("step" in words):
        msg = (
            "Expected `steps` and an axis step in every layer, or neither, but got "
            f"{'no such axis' if over else 'no `steps`'} in layer {name!r}."
        )
        raise ValueError(msg)
    if (
        len(words) != array.ndim
        or "example" not in words
        or len(set(words)) < len(words)
    ):
        wanted = (
            f'an axis name for each of its {array.ndim}, "example" among them'
            if said
            else "(example, unit), (example, token, unit) or (example, channel, y, x)"
        )
        msg = (
            f"Expected layer {name!r} to have {wanted}, but got shape {array.shape}"
            f"{f' and axes {said!r}' if said else ''}; name them with "
            'axes="example y x channel", or reshape (x[:, None] for one unit).'
        )
        raise ValueError(Misuse(msg) if said else msg)
    dims = [w if w in ("step", "example") else f"{name}_{w}" for w in words]
    return xr.Variable(dims, array).transpose(
        "step", "example", ..., missing_dims="ignore"
    )


def _numbers(name: str, values: Any) -> np.ndarray:
    """Return any library's array as NumPy's; bfloat16 as float32, NumPy lacks it."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
        values = values.numpy()
    if hasattr(values, "toarray"):  # scipy.sparse
        values = values.toarray()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        msg = f"Expected layer {name!r} to hold real numbers, but got {array.dtype}."
        raise ValueError(msg)
    return (
        array.astype(array.dtype.newbyteorder("="))
        if array.dtype.kind != "b"
        else (array.astype(np.float32))
    )


def _ids(examples: ArrayLike | None, count: int) -> np.ndarray:
    if examples is None:
        return np.arange(count, dtype=np.int64)
    ids = np.asarray(examples)
    if ids.shape != (count,) or ids.dtype.kind not in "iu":
        msg = (
            f"Expected `examples` to hold {count} whole-number ids, but got "
            f"{ids.dtype} of shape {ids.shape}."
        )
        raise ValueError(msg)
    if len(np.unique(ids)) < count:
        msg = (
            "Expected `examples` to name each example once, but ids repeat; give "
            "repeats ids of their own, and what they share as a label."
        )
        raise ValueError(msg)
    return ids.astype(np.int64)


def _over_examples(
    what: str, given: ArrayLike, count: int
) -> tuple[tuple[str, ...], np.ndarray]:
    values = np.asarray(_plain(given))
    if values.ndim not in (1, 2) or len(values) != count:
        msg = (
            f"Expected `{what}{'s' * (what == 'label')}` to hold a value for each of "
            f"{count} examples, but got shape {values.shape}."
        )
        raise ValueError(msg)
    return ("example", "token")[: values.ndim], values


def _plain(values: Any) -> Any:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else values


def from_hidden_states(
    hidden_states: Sequence[Any],
    *,
    names: Iterable[str] | None = None,
    mask: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    examples: ArrayLike | None = None,
    **attrs: Any,
) -> xr.Dataset:
    """Return a recording of Hugging Face's ``output_hidden_states=True``.

    Parameters
    ----------
    hidden_states : sequence of Tensor, each (example, token, unit)
        `outputs.hidden_states`: the embedding, then every block.
    names : iterable of str, optional
        Layer names; by default ``embedding, block_1, block_2, …``.
    mask : array of bool or int, shape (example, token), optional
        The batch's `attention_mask`.
    labels, examples : array, shape (example,), optional
        As in `from_arrays`.
    **attrs
        Attributes to keep.

    Returns
    -------
    Dataset, dims (example, <layer>_token, <layer>_unit)
        A recording of one moment; `repsim.reduce` makes units of it.

    Raises
    ------
    ValueError
        If there are not as many names as states, or they do not fit together.

    Examples
    --------
    >>> import torch
    >>> states = (torch.zeros(2, 5, 3), torch.ones(2, 5, 3))
    >>> from_hidden_states(states).attrs["layers"]
    ['embedding', 'block_1']
    """
    states = list(hidden_states)
    known = (
        ["embedding", *(f"block_{i}" for i in range(1, len(states)))]
        if names is None
        else [str(name) for name in names]
    )
    if len(known) != len(states) or len(set(known)) < len(known):
        msg = (
            f"Expected a name of its own for each of {len(states)} hidden states, but "
            f"got {known}."
        )
        raise ValueError(msg)
    return from_arrays(
        dict(zip(known, states, strict=True)), labels, examples, mask=mask, **attrs
    )


def from_responses(
    responses: ArrayLike,
    *,
    axes: str = "condition channel",
    name: str = "response",
    conditions: ArrayLike | None = None,
    subjects: Iterable[str] | None = None,
    labels: ArrayLike | None = None,
    **attrs: Any,
) -> xr.Dataset | xr.DataTree:
    """Return measured responses (a brain's, say) as a recording, or one a subject.

    Parameters
    ----------
    responses : array
        Its axes in any order, named by `axes`.
    axes : str
        ``condition`` and ``channel``, and where there are such ``repeat`` and
        ``subject``: ``"subject condition repeat channel"``.
    name : str
        The layer's name: an area, "V1".
    conditions : array of int, shape (condition,), optional
        Ids of the stimuli, those of the networks' recordings of the same stimuli.
    subjects : iterable of str, optional
        Names; ``subject_1, …`` by default.
    labels : array, shape (condition,), optional
        A label a stimulus.
    **attrs
        Attributes to keep.

    Returns
    -------
    Dataset or DataTree
        Without subjects a recording, dims (example, <name>_unit). Repeats are
        averaged, and stand beside the mean as the variable ``<name>@repeats``
        (example, <name>_repeat, <name>_unit), which transposed to repeats first is
        what `repsim.crossnobis` takes. With subjects a study ``/<name>/<subject>``.

    Raises
    ------
    ValueError
        If the axes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> v1 = np.random.default_rng(0).normal(size=(3, 10, 40))
    >>> tree = from_responses(v1, axes="subject condition channel", name="V1")
    >>> list(tree["V1"].children)
    ['subject_1', 'subject_2', 'subject_3']
    """
    array = _numbers(name, responses)
    words = axes.split()
    known = {"condition", "channel", "repeat", "subject"}
    if (
        len(words) != array.ndim
        or not {"condition", "channel"} <= set(words) <= known
        or len(set(words)) < len(words)
    ):
        msg = (
            "Expected `axes` to name each axis, condition and channel among them "
            f"(besides: repeat, subject), but got {axes!r} for shape {array.shape}."
        )
        raise ValueError(Misuse(msg))
    data = xr.DataArray(array, dims=words)
    if "subject" not in words:
        return _responses(data, name, conditions, labels, attrs)
    known_as = (
        [f"subject_{i + 1}" for i in range(data.sizes["subject"])]
        if subjects is None
        else [str(s) for s in subjects]
    )
    if len(known_as) != data.sizes["subject"]:
        msg = (
            f"Expected {data.sizes['subject']} names in `subjects`, but got "
            f"{len(known_as)}."
        )
        raise ValueError(msg)
    return xr.DataTree.from_dict(
        {
            f"{name}/{who}": _responses(
                data.isel(subject=i), name, conditions, labels, {**attrs, "seed": who}
            )
            for i, who in enumerate(known_as)
        }
    )


def _responses(
    data: xr.DataArray,
    name: str,
    conditions: ArrayLike | None,
    labels: ArrayLike | None,
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """Return one subject's responses, repeats averaged and kept beside the mean."""
    mean = data.mean("repeat") if "repeat" in data.dims else data
    values = mean.transpose("condition", "channel").values
    run = from_arrays({name: values}, labels, conditions, condition=name, **attrs)
    if "repeat" in data.dims:
        each = data.transpose("condition", "repeat", "channel").values
        dims = ("example", f"{name}_repeat", f"{name}_unit")
        run[f"{name}@repeats"] = xr.Variable(dims, each)
    return run
