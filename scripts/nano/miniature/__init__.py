"""The miniature Video LLM: its world, its questions, its training and its evaluation."""
