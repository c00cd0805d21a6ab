"""The commands of operators and developers."""
