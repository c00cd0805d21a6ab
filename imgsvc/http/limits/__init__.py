"""The limits of calls: rates, quotas, memory for bodies, time for headers."""
