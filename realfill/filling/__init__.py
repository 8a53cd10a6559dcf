"""Filling a hole: windows, sampling, stages and tiles, blending, grain (paper, section 3.3)."""
