"""Which rank answers which questions, in which order, and how ranks exchange them."""
