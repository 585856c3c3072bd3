"""Vision towers, visual features to sequences, and the language model that reads them."""
