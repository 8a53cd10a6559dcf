"""Many photos and scenes: one by one, in processes or on Ray. The steps of one job belong in the pipeline."""
