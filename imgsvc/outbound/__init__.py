"""The way out to servers that strangers name: guarded, bounded, polite."""
