"""How a question is answered: prompts, generation, scoring, stopping, shared prefixes."""
