"""Colour profiles: conversion of any profile to 8-bit sRGB, and back in 16 bits."""

import io

import numpy as np
import pytest
from helpers import make_photo, make_profile
from PIL import Image, ImageCms

from realfill.io import profiles
from realfill.io.profiles import from_srgb, is_readable, is_writable, to_depth, to_srgb

WIDE, GREY = make_profile(), make_profile(gamma=1.8, grey=True)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PHOTO = make_photo(40, 50)
COLOURS = PHOTO.reshape(-1, 3)


def curve_of(kind, *values):
    """Write a parametric tone curve."""
    return b"para\0\0\0\0" + kind.to_bytes(2, "big") + b"\0\0" + b"".join(
        round(v * 65536).to_bytes(4, "big", signed=True) for v in values
    )  # fmt: skip


def with_littlecms(values, profile, mode):
    target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(
        Image.fromarray(values[None]), ImageCms.createProfile("sRGB"), target, outputMode=mode
    )
    return np.asarray(converted).reshape(len(values), -1)


@pytest.mark.parametrize(("profile", "channels", "mode"), [(WIDE, 3, "RGB"), (GREY, 1, "L")])
def test_computed_values_agree_with_littlecms(profile, channels, mode):
    ours = from_srgb(COLOURS, profile, channels, np.dtype(np.uint8))
    assert np.abs(ours.astype(int) - with_littlecms(COLOURS, profile, mode)).max() <= 1


@pytest.mark.parametrize(("profile", "channels"), [(WIDE, 3), (SRGB, 3), (None, 3)])
def test_a_round_trip_is_close(profile, channels):
    for dtype in (np.uint8, np.uint16):
        encoded = from_srgb(COLOURS, profile, channels, np.dtype(dtype))
        assert encoded.dtype == dtype and encoded.shape == (len(COLOURS), channels)
        error = np.abs(to_srgb(encoded, profile).astype(int) - COLOURS)
        assert error.mean() < 0.5 and error.max() <= (8 if profile == WIDE else 0)  # deep shadows are coarse in 8 bits


def test_a_profile_is_srgb_by_its_effect_and_not_by_its_name():
    linear = make_profile(gamma=1.0, title=b"sRGB, linear")
    greys = np.repeat(np.array([[55], [128], [200]], np.uint8), 3, axis=1)
    assert np.abs(to_srgb(greys, linear)[:, 1].astype(int) - [128, 188, 229]).max() <= 2
    assert to_srgb(greys, SRGB) is greys


def test_16_bits_stay_16_bits():
    ramp = np.repeat(np.arange(20000, 21000, dtype=np.uint16)[:, None], 3, axis=1)
    for profile, channels in ((WIDE, 3), (GREY, 1), (None, 3), (None, 1)):
        values = from_srgb(ramp, profile, channels, np.dtype(np.uint16))
        assert len(np.unique(values[:, 0])) > 700, "steps of a few 16-bit levels, not of 257"


def test_profiles_without_a_matrix_go_through_littlecms(monkeypatch):
    monkeypatch.setattr(profiles, "_matrix_encoder", lambda *_: None)
    values = from_srgb(COLOURS, WIDE, 3, np.dtype(np.uint16))
    assert values.dtype == np.uint16
    assert np.abs(values / 257 - with_littlecms(COLOURS, WIDE, "RGB")).max() <= 1


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        (b"curv\0\0\0\0\0\0\0\0", lambda x: x),
        (b"curv\0\0\0\0\0\0\0\x01\x02\x00", lambda x: x**2),
        (b"curv\0\0\0\0\0\0\0\x03\x00\x00\x40\x00\xff\xff", lambda x: np.interp(x, [0, 0.5, 1], [0, 0.25, 1])),
        (curve_of(0, 1.8), lambda x: x**1.8),
        (curve_of(1, 2, 0.8, 0.2), lambda x: (0.8 * x + 0.2) ** 2),
        (curve_of(1, 2, 1.25, -0.25), lambda x: np.maximum(1.25 * x - 0.25, 0) ** 2),
        (curve_of(2, 2, 0.8, 0.1, 0.19), lambda x: (0.8 * x + 0.1) ** 2 + 0.19),
        (
            curve_of(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
            lambda x: np.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92),
        ),
        (
            curve_of(4, 2, 0.9, 0.1, 0.5, 0.2, 0.0, 0.01),
            lambda x: np.where(x < 0.2, 0.5 * x + 0.01, (0.9 * x + 0.1) ** 2),
        ),
    ],
)
def test_tone_curves_are_read_as_the_icc_defines_them(tag, expected):
    x = np.linspace(0, 1, 333)
    assert np.allclose(profiles._curve(tag)(x), expected(x), atol=2e-4)


def test_an_unknown_curve_has_no_exact_conversion():
    assert profiles._curve(b"abcd" + bytes(20)) is None


def test_damaged_and_mismatched_profiles_are_not_readable():
    for profile, channels in ((WIDE, 3), (GREY, 1), (SRGB, 3)):
        assert is_readable(profile, channels) and is_writable(profile, channels)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (None, b"", b"no profile", GREY, lab, WIDE[:200]):
        assert not is_readable(profile, 3)


@pytest.mark.parametrize("profile", [None, WIDE])
def test_grey_stays_grey(profile):
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    if profile is None:
        assert np.array_equal(from_srgb(grey, None, 1, np.dtype(np.uint8)), grey[:, :1])
    else:
        assert np.ptp(from_srgb(grey, profile, 3, np.dtype(np.uint8)).astype(int), axis=1).max() <= 1


def test_conversion_in_chunks_gives_the_same_values(monkeypatch):
    whole = [to_srgb(PHOTO, WIDE), from_srgb(COLOURS, WIDE, 3, np.dtype(np.uint16))]
    monkeypatch.setattr(profiles, "_CHUNK", 37)
    assert np.array_equal(to_srgb(PHOTO, WIDE), whole[0])
    assert np.array_equal(from_srgb(COLOURS, WIDE, 3, np.dtype(np.uint16)), whole[1])


def test_depths_are_rounded():
    wide = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(to_depth(wide, np.uint8), np.round(wide / 257))
    narrow = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_depth(to_depth(narrow, np.uint16), np.uint8), narrow)


def test_8_bit_srgb_is_not_copied():
    assert to_srgb(PHOTO, None) is PHOTO
