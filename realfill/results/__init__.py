"""The results of a job and their files: completions, provenance, pictures. Runs no model and ranks nothing."""
