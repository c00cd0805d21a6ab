"""The words that all parts share: what is worked on, what may fail, what is passed on. Nothing here does I/O."""
