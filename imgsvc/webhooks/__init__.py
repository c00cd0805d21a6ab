"""Webhooks: what they say, how they are signed, and one attempt to deliver one."""
