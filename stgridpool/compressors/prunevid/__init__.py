"""PruneVid and its parts."""
