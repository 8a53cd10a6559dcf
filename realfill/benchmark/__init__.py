"""Methods measured on scenes with ground truth: cases, metrics, methods, runner, report. Ground truth stays here."""
