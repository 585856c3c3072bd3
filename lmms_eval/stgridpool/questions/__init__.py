"""Which questions a rank answers, in which order, and how ranks exchange them."""
