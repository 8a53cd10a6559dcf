"""From samples to pixels: blending, grain, and the loop over seeds and windows. Trains nothing and ranks nothing."""
