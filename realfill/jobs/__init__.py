"""Many photos and scenes: one after the other or in several processes. What one job does is the pipeline's."""
