"""Authentication: who calls, by an API key or by an issuer's token."""
