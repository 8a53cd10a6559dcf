"""Methods to compare with: each prepared once for a scene, then sampled for any number of seeds."""
