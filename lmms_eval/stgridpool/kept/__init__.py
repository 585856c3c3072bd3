"""What a run keeps: its journal, its record, its files, and the keys that tell them apart."""
