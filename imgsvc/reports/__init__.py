"""The CSV in and out, and what a request saved."""
