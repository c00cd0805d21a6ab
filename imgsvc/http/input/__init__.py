"""What clients send: bodies and queries, read and checked against schemas."""
