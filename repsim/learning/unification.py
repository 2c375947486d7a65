"""The table of the unification, from what the rules say about themselves.

`python -m repsim.learning` writes it as Markdown.
"""

from dataclasses import fields

import pandas as pd

from repsim.learning.factory import rules
from repsim.learning.recurrent import RecurrentSyntheticGradient
from repsim.learning.rule_info import Info


def rows() -> list[Info]:
    """Return the rows of all registered rules that describe themselves.

    At their end stands the rule for sequences, which has no blocks and so no name.
    """
    infos: list[Info] = []
    for name in rules.names():
        rule = rules.get(name)
        variants = getattr(rule, "variants", ()) or (getattr(rule, "info", None),)
        infos += [row for row in variants if isinstance(row, Info) and row not in infos]
    return [*infos, RecurrentSyntheticGradient.info]


def table() -> pd.DataFrame:
    """Return the unification table: one method a row.

    Returns
    -------
    DataFrame
        Columns method, error, learned, update_locked, backward_locked, sees_error,
        source (see `Info`).

    Examples
    --------
    >>> table().set_index("method").loc["DFA", "error"]
    'e B_i'
    """
    columns = [field.name for field in fields(Info)]
    values = [[getattr(row, column) for column in columns] for row in rows()]
    return pd.DataFrame(values, columns=columns)


def markdown() -> str:
    """Return the table as Markdown."""
    told = {True: "yes", False: "no"}
    heads = [field.name.replace("_", " ") for field in fields(Info)]
    lines = [heads, ["---"] * len(heads)]
    lines += [
        [told.get(value, value) for value in row]
        for row in table().itertuples(index=False)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
