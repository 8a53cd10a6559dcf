"""The speed benchmark: fit, sampling and ranking against a straight port of what public scripts do."""
