"""Fitting a base to a scene: crops, noise, the loss, the loop, what it will take (paper, section 3.2)."""
