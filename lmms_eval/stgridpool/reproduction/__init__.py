"""The runs behind published tables, and our numbers beside the published ones."""
