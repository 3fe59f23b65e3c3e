"""What the evaluation refuses."""


class EvaluationError(ValueError):
    """Predictions, labels or names that cannot be evaluated or written; the message says which, and what would work."""
