"""Who may come in: API keys and the tokens of an issuer."""
