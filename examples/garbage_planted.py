"""Planted files for ``garbage_study.py``, each of which attacks one weakness."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from garbage_inputs import Subject
from garbage_mutations import mend_png
from garbage_study import Input

_PIXEL_BYTES = 48  # as for photos in garbage_study
_DEEP = b"[" * 100_000 + b"]" * 100_000
_NUMBERS = (b"NaN", b"-Infinity", b"1e400", b"9" * 400, b"-1", b"2147483648", b'"\\ud800"', b"[]", b"null")
Make = Callable[[Path], None]


def planted_inputs(_: Path, subjects: Sequence[Subject]) -> list[Input]:
    """Make every planted input."""
    by_name = {subject.name: subject for subject in subjects}
    return [
        *_bombs(by_name), *_of_any_file(subjects), *_of_json(subjects), *_of_names(by_name), *_of_links(by_name),
        *_of_archives(by_name), *_of_headers(by_name), *_of_bases(by_name),
    ]  # fmt: skip


def _input(subject: Subject, name: str, change: Make, *, needed_bytes: int = 0) -> Input:
    def make(folder: Path) -> None:
        shutil.copytree(subject.folder, folder, dirs_exist_ok=True)
        change(folder)

    return Input(name=f"planted: {subject.name}: {name}", make=make, read=subject.read, needed_bytes=needed_bytes)


def _content(subject: Subject, name: str, data: bytes, *, needed_bytes: int = 0) -> Input:
    return _input(subject, name, lambda f: _write(f / subject.target, data), needed_bytes=needed_bytes)


def _write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, rows: bytes | None = None) -> bytes:
    """Write a PNG that declares a size; without ``rows`` it has hardly any data."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 99) if rows is None else rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )


def tiff(width: int, height: int, *, samples: int = 1, bits: int = 8, strips: int = 1, depth: int = 1) -> bytes:
    """Write a TIFF that declares a size and has no data."""
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, strips, 8),
        (277, 3, 1, samples), (278, 4, 1, height), (279, 4, strips, 0xFFFFFFF0), (32997, 4, 1, depth),
    ]  # fmt: skip
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + body


def _flat_png(side: int) -> bytes:
    """Write a whole PNG of one colour, a thousand times smaller than its pixels."""
    pack, row = zlib.compressobj(9), bytes(1 + 3 * side)
    return png(side, side, rows=b"".join([*(pack.compress(row) for _ in range(side)), pack.flush()]))


def _bombs(by_name: Mapping[str, Subject]) -> Iterator[Input]:
    """Make images whose size is absurd, or far larger than the file."""
    absurd = [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (0, 48), (2**31 - 1, 1)]
    text = b"\0" * 8 + zlib.compress(b"x" * 200_000_000, 9)
    for name in ("target png", "target png16", "reference", "mask", "truth", "scene by command", "mask by command"):
        subject = by_name[name]
        for width, height in absurd:
            for depth in (8, 16):
                yield _content(subject, f"PNG of {width} x {height}, {depth} bits", png(width, height, depth=depth))
            yield _content(subject, f"TIFF of {width} x {height}", tiff(width, height))
    target = by_name["target png"]
    for side in (9_000, 14_000):
        yield _content(target, f"a whole PNG of {side} x {side}", _flat_png(side), needed_bytes=side**2 * _PIXEL_BYTES)
    original = (target.folder / target.target).read_bytes()
    for kind in (b"zTXt", b"iCCP", b"iTXt", b"eXIf"):
        body = {b"zTXt": b"Comment\0\0", b"iCCP": b"profile\0\0", b"iTXt": b"Comment\0\1\0\0\0", b"eXIf": b"Exif\0\0"}[
            kind
        ]
        chunk = struct.pack(">I", len(body + text[8:])) + kind + body + text[8:] + bytes(4)
        yield _content(target, f"200 MB of text in {kind.decode()}", mend_png(original[:33] + chunk + original[33:]))
    words = "".join("a" * 199 + "!" for _ in range(5_000)).encode()
    chunk = struct.pack(">I", len(words) + 8) + b"tEXt" + b"Comment\0" + words + bytes(4)
    yield _content(
        target, "text that a careless pattern takes hours for", mend_png(original[:33] + chunk + original[33:])
    )
    for samples, bits, depth in ((65_535, 8, 1), (2, 16, 1), (1, 16, 60_000), (4, 32, 1), (1, 64, 1)):
        for side in (48, 60_000):
            data = tiff(side, side, samples=samples, bits=bits, depth=depth)
            yield _content(by_name["target tiff"], f"TIFF of {side}, {samples} x {bits} bits, depth {depth}", data)
    yield _content(by_name["target tiff"], "TIFF of a billion strips", tiff(64, 48, strips=1_000_000_000))
    others = {
        "a portable float map": b"PF\n100000 100000\n-1.0\n", "a Radiance file": b"#?RADIANCE\n\n-Y 100000 +X 100000\n",
        "a Sun raster": b"\x59\xa6\x6a\x95" + struct.pack(">7I", 90_000, 90_000, 24, 0, 1, 0, 0),
        "a portable map": b"P6 100000 100000 255\n", "a farbfeld": b"farbfeld" + struct.pack(">II", 90_000, 90_000),
        "a BMP": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 999, 0, 0, 54, 40, 90_000, 90_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n(x) (ran-code) (w) file\n%%EOF\n",
        "a page of HTML": b"<!doctype html><title>404</title>", "an SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "XML with entities": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>',
    }  # fmt: skip
    for name, data in others.items():
        yield _content(target, f"{name} named .png", data)
        yield _content(by_name["mask"], f"{name} named .png", data)


def _of_any_file(subjects: Sequence[Subject]) -> Iterator[Input]:
    """Put something else where a file is expected."""
    for subject in subjects:
        for name, data in (("empty", b""), ("one zero", b"\0"), ("64 kB of zeros", bytes(65_536))):
            yield _content(subject, name, data)
        yield _input(subject, "a folder", lambda f, s=subject: _replace(f / s.target, Path.mkdir))
        yield _input(subject, "a pipe", lambda f, s=subject: _replace(f / s.target, os.mkfifo))
        yield _input(subject, "a link to a device", lambda f, s=subject: _link(f / s.target, "/dev/zero"))
        yield _input(subject, "a link to itself", lambda f, s=subject: _link(f / s.target, Path(s.target).name))
        yield _input(subject, "a link to nothing", lambda f, s=subject: _link(f / s.target, "nothing"))
        yield _input(subject, "missing", lambda f, s=subject: (f / s.target).unlink())


def _replace(path: Path, make: Callable[[Path], Any]) -> None:
    path.unlink()
    make(path)


def _link(path: Path, target: str) -> None:
    _replace(path, lambda p: p.symlink_to(target))


def _of_json(subjects: Sequence[Subject]) -> Iterator[Input]:
    """Put hostile JSON where JSON is expected."""
    for subject in subjects:
        if not subject.is_json:
            continue
        yield _content(subject, "100,000 brackets", _DEEP)
        yield _content(subject, "100,000 nested objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
        yield _content(subject, "40 MB", b'{"a": "' + b"x" * 40_000_000 + b'"}')
        yield _content(subject, "UTF-16", json.dumps({"a": 1}).encode("utf-16"))
        for number in _NUMBERS:
            yield _content(subject, f"only {number[:12]!r}", number)
        values = json.loads((subject.folder / subject.target).read_bytes())
        for key in list(values)[:6] if isinstance(values, dict) else ():
            for number in (b"9" * 400, b"[[[[]]]]"):
                data = json.dumps({**values, key: "\ue000"}).replace(json.dumps("\ue000"), number.decode()).encode()
                yield _content(subject, f"{key} is {number[:8]!r}", data)


def _of_names(by_name: Mapping[str, Subject]) -> Iterator[Input]:
    """Give files names that are paths, have several lines, or control the terminal."""
    scores = by_name["scores"]
    values = json.loads((scores.folder / "scores.json").read_bytes())
    for name in (
        "../out.png",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a\nb.png",
        "a\x1b[2Jb.png",
        "\u202egnp.a",
        "CON",
        "a\0b",
        5,
    ):
        changed = {**values, "completions": [{**values["completions"][0], "file": name}]}
        yield _content(scores, f"file is {name!r}", json.dumps(changed).encode())
    twice = {**values, "completions": values["completions"][:1] * 50_000}
    yield _content(scores, "one file 50,000 times", json.dumps(twice).encode())
    scene = by_name["reference"]
    for name in ("a\nb.jpg", "a\x1b[2Jb.jpg", "\u202egpj.a.jpg", "1²", "²", "x" * 240, "-rf", "a\udcffb.jpg"):
        for data in (b"no image", (scene.folder / scene.target).read_bytes()):
            kind = "an image" if len(data) > 9 else "no image"
            yield _input(
                scene, f"a reference named {name[:12]!r}, {kind}", lambda f, n=name, d=data: _write(f / "ref" / n, d)
            )


def _of_links(by_name: Mapping[str, Subject]) -> Iterator[Input]:
    """Link files and folders to places outside."""
    for name in ("reference", "target png", "mask", "adapter manifest", "scores", "batch record", "benchmark run"):
        subject = by_name[name]
        yield _input(subject, "a link to a file outside", lambda f, s=subject: _link(f / s.target, "/etc/passwd"))

    def link_folder(folder: Path) -> None:
        outside = folder.parent / f"{folder.name} outside"
        shutil.move(folder / "ref", outside)
        (folder / "ref").symlink_to(outside)

    yield _input(by_name["reference"], "its folder is a link outside", link_folder)


def _of_archives(by_name: Mapping[str, Subject]) -> Iterator[Input]:
    """Make archives of arrays that unpack to far more than they should, or hold objects."""
    subject = by_name["evidence"]
    original = np.load(subject.folder / subject.target)
    values = {name: original[name] for name in ("kind", "source", "confidence")}
    for name, array in (
        ("of a gigabyte", np.zeros(1_000_000_000, np.uint8)),
        ("of objects", np.array([{"a": 1}], object)),
        ("of floats", np.full(381, np.nan)),
        ("of another kind", np.full(381, 200, np.uint8)),
        ("of no dimension", np.array(3, np.uint8)),
        ("of text", np.array(["a" * 1000])),
    ):
        stream = io.BytesIO()
        np.savez_compressed(stream, **{**values, "kind": array})
        yield _content(subject, f"an array {name}", stream.getvalue())
    for name, header in (
        ("a shape of 10**15", "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000000,), }"),
        ("brackets", "[" * 9_000),
        ("a call", "__import__('os').system('true')"),
    ):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for key in values:
                padded = header.ljust(118) + "\n"
                archive.writestr(f"{key}.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(padded)) + padded.encode())
        yield _content(subject, f"a header with {name}", stream.getvalue())


def _of_headers(by_name: Mapping[str, Subject]) -> Iterator[Input]:
    """Make safetensors headers that lie."""
    for name in ("adapter weights", "checkpoint", "completion network", "base vae/diffusion_pytorch_model.safetensors"):
        subject = by_name[name]
        for length in (2**63, 2**40, 100_000_000, 0):
            yield _content(subject, f"a header of {length} bytes", struct.pack("<Q", length) + b"{}")
        for shape, end in (([10**9, 10**9], 10), ([2**40], 2**40), ([-1], 4), ([], 4)):
            header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
            yield _content(subject, f"a tensor of {shape}", struct.pack("<Q", len(header)) + header + bytes(10))
        yield _content(subject, "a header of brackets", struct.pack("<Q", len(_DEEP)) + _DEEP)
        yield _content(subject, "a pickle", b"\x80\x04cos\nsystem\n(S'touch ran-code'\ntR.")
        yield _content(subject, "an archive of torch", b"PK\x03\x04" + bytes(200))
    network = by_name["completion network"]
    data = (network.folder / network.target).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    for width in (100_000, 3, -2, "2"):
        card = {**json.loads(header["__metadata__"]["card"]), "width": width}
        text = json.dumps({**header, "__metadata__": {**header["__metadata__"], "card": json.dumps(card)}}).encode()
        yield _content(network, f"a width of {width!r}", struct.pack("<Q", len(text)) + text + data[8 + length :])


def _of_bases(by_name: Mapping[str, Subject]) -> Iterator[Input]:
    """Make base models that name code, or are far larger than their files."""
    index, unet = by_name["base model_index.json"], by_name["base unet/config.json"]
    text = by_name["base text_encoder/config.json"]
    for subject, changes in (
        (index, {"_class_name": ["evil", "Pipeline"]}),
        (index, {"unet": ["evil", "Net"]}),
        (index, {"vae": ["os", "system"]}),
        (index, {"custom_pipeline": "someone/pipeline"}),
        (index, {"extra": ["subprocess", "Popen"]}),
        (unet, {"auto_map": {"AutoModel": "evil.Net"}}),
        (unet, {"layers_per_block": 10**6}),
        (unet, {"block_out_channels": [2**31] * 3}),
        (text, {"num_hidden_layers": 10**6}),
        (text, {"max_position_embeddings": 2**31}),
        (text, {"auto_map": {"AutoModel": "evil.Net"}}),
        (text, {"attn_implementation": "someone/kernel"}),
        (text, {"vocab_size": 2**31}),
        (text, {"quantization_config": {"quant_method": "bitsandbytes"}}),
    ):
        values = json.loads((subject.folder / subject.target).read_bytes())
        yield _content(subject, f"with {changes}"[:90], json.dumps({**values, **changes}).encode())

    def write_code(folder: Path) -> None:
        for place in (folder, folder / "unet"):
            (place / "evil.py").write_text("open('ran-code', 'w')\n", encoding="utf-8")
        values = json.loads((folder / "model_index.json").read_bytes())
        _write(folder / "model_index.json", json.dumps({**values, "unet": ["evil", "Net"]}).encode())

    yield _input(index, "with code beside it", write_code)
