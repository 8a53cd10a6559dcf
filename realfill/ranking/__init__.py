"""Ranking completions by authenticity: by matched keypoints or by warped references. Generates no pixels."""
