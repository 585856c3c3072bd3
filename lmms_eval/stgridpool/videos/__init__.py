"""Videos on their way to the prompt: read ahead, encoded, cached."""
