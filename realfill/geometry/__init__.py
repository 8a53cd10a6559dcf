"""Geometry between photos of one scene: matched keypoints, cameras, depth, and references warped to the target view.

Contains no networks other than matchers, and knows nothing about models or training.
"""
