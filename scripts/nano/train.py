"""Train the miniature Video LLM."""

from miniature.train import main

if __name__ == "__main__":
    main()
