"""EarlyTom and its parts."""
