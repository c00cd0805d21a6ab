"""Where bytes are kept: the bucket for good, the spool for the next actor."""
