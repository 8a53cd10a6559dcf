"""Instances in a photo, and masks from them. No filling and no scenes belong here; detectors see one photo."""
