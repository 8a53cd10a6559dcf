"""Depth of the target's pixels: slopes, outlines, and what only one reference shows."""

import sys
import warnings

import cv2
import numpy as np
import pytest
from planted_3d import Shot, rectangle, render
from support.images import make_world

from realfill.geometry.cameras import Camera
from realfill.geometry.depth import sweep
from realfill.geometry.fields import grid_of
