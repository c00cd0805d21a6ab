"""What bounds calls: rates, quotas, bytes of bodies, connections."""
