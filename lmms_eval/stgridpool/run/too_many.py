"""The rule by which unanswered questions are too many for a run to count."""


def are_too_many(failed: int, asked: int, max_failed: float) -> bool:
    """Tell whether too many questions are unanswered; a run that answers none has failed even if `max_failed` is 1.

    Args:
        failed: Number of questions without an answer.
        asked: Number of questions.
        max_failed: Largest fraction of questions that may stay unanswered, 0 to 1.
    """
    return failed > max_failed * asked or 0 < asked == failed
