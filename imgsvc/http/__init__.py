"""The HTTP side: one table of routes, and what answers them."""
