"""The way out to servers that strangers name: guarded, bounded, polite.

client        asks: downloads, small documents, webhooks
session       over which it asks, with response_heads and resolver
guard         which URLs and addresses may be reached, with addresses
bodies        the file in an answer, with content_codings and bot_walls
politeness    lets images visit origins, with origin, known_origins and host_limits
"""
