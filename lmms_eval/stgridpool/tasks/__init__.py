"""Functions that task files refer to by name; nothing else imports them."""
