"""The six labels of a slice and what the challenge's score makes of them."""

CLASSES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")
"""In the order of the challenge's files; "any" is the OR of the others."""

SCORE_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0)
"""Of each class in the weighted log loss: "any" counts twice, the sum is 7."""

PROBABILITIES = tuple(f"p_{name}" for name in CLASSES)
"""Columns of predictions."""


def column_weights(epidural: float, any_: float) -> tuple[float, ...]:
    """Weights of the classes' columns in a loss; 1 and 2 make it the challenge's score."""
    return (epidural, *SCORE_WEIGHTS[1:-1], any_)
