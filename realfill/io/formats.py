"""Names and suffixes of the file formats in which results are saved."""

from collections.abc import Mapping
from typing import Literal

FileFormat = Literal["png", "tiff", "jpeg"]
SUFFIXES: Mapping[FileFormat, str] = {"png": ".png", "tiff": ".tif", "jpeg": ".jpg"}
