"""Files of real data in every format that is read."""

from __future__ import annotations

import gzip
import io
import shutil
import zipfile
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np

from fedcl_distill.data import load_csv, load_image_folder, load_npz
from fedcl_distill.data.files import read_idx
from fedcl_distill.errors import DataError
from simulations.fuzz.mutation import mutate_bytes, mutate_text
from simulations.fuzz.samples import images
from simulations.fuzz.scratch import scratch_file, scratch_folder
from simulations.fuzz.target import Target

_IDX = b"\0\0\x08\x03\0\0\0\x02\0\0\0\x02\0\0\0\x03" + bytes(range(12))
_CSV = b"age,chol,where,label\n" + b"63,233,a,0\n41,?,b,1\n50,1e2,a,0\n30.5,-2,b,1\n" * 3
_GZIP = b"\x1f\x8b"


def _read_idx(data: bytes) -> Any:
    return read_idx(scratch_file("images.gz" if data.startswith(_GZIP) else "images", data))


def _mutate_idx(data: bytes, random: Random) -> bytes:
    """What is compressed is changed inside half of the time."""
    if data.startswith(_GZIP) and random.randrange(2):
        try:
            return gzip.compress(mutate_bytes(gzip.decompress(data), random), 1)
        except Exception:  # an earlier change broke it
            return mutate_bytes(data, random)
    return mutate_bytes(data, random)


def _archives() -> Sequence[bytes]:
    made = []
    for compress in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        values, labels = images().samples.numpy()[:, 0], images().labels.numpy()[:, None].astype(np.uint8)
        compress(buffer, train_images=values, train_labels=labels, test_images=values[:6], test_labels=labels[:6])
        made.append(buffer.getvalue())
    return made


def _mutate_archive(data: bytes, random: Random) -> bytes:
    """One array's file is changed and packed again, so that checksums hold."""
    if random.randrange(4) == 0:
        return mutate_bytes(data, random)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        chosen = random.choice(list(members))
        content = members[chosen]
        header, rest = content[:128], content[128:]
        if random.randrange(2):
            members[chosen] = mutate_text(header, random)[:127].ljust(127) + b"\n" + rest
        else:
            members[chosen] = mutate_bytes(content, random)
    except Exception:  # an earlier change broke it
        return mutate_bytes(data, random)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _pictures() -> Sequence[bytes]:
    from PIL import Image

    made = []
    for mode in ("L", "RGB", "P", "1", "LA", "RGBA", "I;16"):
        picture = Image.frombytes("L", (6, 6), images().samples[0].numpy().tobytes()).convert(mode.replace("I;16", "I"))
        for form in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"):
            buffer = io.BytesIO()
            try:
                picture.save(buffer, form)
            except (OSError, ValueError, KeyError):  # this format knows no such mode
                continue
            made.append(buffer.getvalue())
    return made


def _read_folder(data: bytes) -> Any:
    for name in ("folder/a/0.png", "folder/a/1.png", "folder/b/0.png", "folder/b/1.png"):
        scratch_file(name, data)
    try:
        return load_image_folder(scratch_folder() / "folder")
    finally:
        shutil.rmtree(scratch_folder() / "folder")


IDX = Target("idx", lambda: [_IDX, gzip.compress(_IDX)], _read_idx, (DataError,), mutate=_mutate_idx)
NPZ = Target(
    "npz", _archives, lambda data: load_npz(scratch_file("data.npz", data)), (DataError,), mutate=_mutate_archive
)
CSV = Target(
    "csv",
    lambda: [_CSV, _CSV.replace(b"0\n", b"no\n")],
    lambda data: load_csv(scratch_file("table.csv", data), label="label", group="where"),
    (DataError,),
    mutate=mutate_text,
)
IMAGES = Target("images", _pictures, _read_folder, (DataError,))
