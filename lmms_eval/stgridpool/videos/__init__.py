"""How videos reach the prompt: prefetched, encoded, cached."""
