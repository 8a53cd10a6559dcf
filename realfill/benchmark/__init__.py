"""The benchmark: every method on every case, measured in one way."""
