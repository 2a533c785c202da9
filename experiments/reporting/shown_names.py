"""What reports and the terminal call the methods, so that the recommender teacher is never taken for the LLM."""

_SHOWN = {"Teacher": "Recommender teacher", "Teacher lists": "Recommender teacher's lists"}


def shown_name(method: str) -> str:
    """Returns the name of a method for a reader."""
    return _SHOWN.get(method, method)


def shown_difference(text: str) -> str:
    """Returns the heading of a difference, "METHOD − OTHER", with the names of a report."""
    return " − ".join(map(shown_name, text.split(" − ")))
