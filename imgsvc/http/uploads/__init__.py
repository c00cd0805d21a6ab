"""The way of an upload: read, parse, validate, admit, accept. Start with ``upload``."""
