"""CSV in and out, and the savings of a request."""
