"""Redis: the actors' mailboxes, and what replicas tell each other."""
