"""The minimiser behind `LinearProbe`: penalised logistic regression by L-BFGS.

`problem` is the objective, `conditioning` puts it in coordinates in which it is round,
`solver` descends, steered by `metric` and remembering moves in `lbfgs`.
"""
