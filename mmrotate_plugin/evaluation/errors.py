"""The error of data that cannot be evaluated."""

from ..utils.errors import InputError


class EvaluationError(InputError, ValueError):
    """Predictions, labels or names that cannot be evaluated or written; the message says which, and what would work."""
