"""How a question is asked and answered: prompts, generation, stopping, shared prefixes."""
