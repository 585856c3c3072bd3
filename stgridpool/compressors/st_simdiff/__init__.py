"""ST-SimDiff and its parts."""
