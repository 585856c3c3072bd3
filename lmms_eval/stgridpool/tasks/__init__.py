"""Functions that task files name; nothing else imports them."""
