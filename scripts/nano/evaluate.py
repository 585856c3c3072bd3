"""Evaluate the miniature Video LLM on held-out clips."""

from miniature.evaluate import main

if __name__ == "__main__":
    main()
