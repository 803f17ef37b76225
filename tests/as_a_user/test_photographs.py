"""A newcomer's folder of photographs, as phones and the web leave them: one command distils, judges and reports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fedcl_distill import load_data
from fedcl_distill.data import load_image_folder
from fedcl_distill.errors import SettingsError
from fedcl_distill.training import BRIEF, PROTOCOLS
from simulations.cli import app

Image = pytest.importorskip("PIL.Image")

CLASSES = ("beach", "city", "forest", "night")
COLOURS = ((220, 200, 120), (130, 130, 140), (40, 120, 50), (10, 10, 50))


def take_photographs(folder: Path, each: int = 6) -> None:
    """Of four classes and many sizes; some lying (EXIF), grey, transparent, 16-bit, CMYK, with a palette, broken."""
    rng = np.random.default_rng(0)
    for name, colour in zip(CLASSES, COLOURS, strict=True):
        place = folder / name
        place.mkdir(parents=True)
        for index in range(each):
            shape = (int(rng.integers(20, 40)), int(rng.integers(20, 40)), 3)
            pixels = np.clip(rng.normal(colour, 12, shape), 0, 255).astype(np.uint8)
            picture = Image.fromarray(pixels)
            exif = Image.Exif()
            match index:
                case 0:
                    exif[0x0112] = 6
                    picture.save(place / "IMG_0.JPG", exif=exif)
                case 1:
                    picture.convert("L").save(place / "1.png")
                case 2:
                    picture.putalpha(Image.new("L", picture.size, 128))
                    picture.save(place / "2.webp", lossless=True)
                case 3:
                    picture.convert("P").save(place / "3.gif")
                case 4:
                    picture.convert("CMYK").save(place / "4.jpg")
                case _:
                    picture.save(place / f"{index}.jpeg")
    (folder / "city" / "cut.jpg").write_bytes((folder / "city" / "5.jpeg").read_bytes()[:150])
    (folder / "night" / "empty.png").write_bytes(b"")
    Image.fromarray(np.full((24, 24), 3000, np.uint16)).save(folder / "night" / "deep.png")
    (folder / "forest" / "Thumbs.db").write_bytes(b"no picture")
    (folder / "forest" / "live.heic").write_bytes(b"no picture")
    (folder / "__MACOSX").mkdir()


SAID = (
    "4 turned upright, as EXIF says",
    "4 transparent in places, laid on white",
    "4 with a palette, made RGB",
    "4 in CMYK, made RGB",
    "1 of 16 bits, divided by 257",
    "5 grey, repeated to three channels",
    "left out 2 pictures that cannot be read: ",
    "city/cut.jpg: cannot be read as an image",
    "files in photos/ that are no known pictures: .heic (1)",
    "augmentation mirrors no picture",
)


def test_one_command_distils_judges_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = replace(BRIEF, train_config=replace(BRIEF.train_config, epochs=40))
    monkeypatch.setitem(PROTOCOLS, "brief", short)
    take_photographs(tmp_path / "photos")
    command = ["distil", "--data", str(tmp_path / "photos"), "--out", str(tmp_path / "runs"), "--report"]
    quick = ["--method", "dm:architecture=[convnet:width=8,depth=2]", "--distil-steps", "5", "--images-per-class", "1"]
    quick += ["--networks", "1", "--protocol", "brief", "--architecture", "convnet:width=8,depth=2"]
    runner = CliRunner()
    refused = runner.invoke(app, [*command, *quick])
    assert refused.exit_code == 2
    assert "--image-size 128" in refused.stderr or "cannot be read" in refused.stderr
    done = runner.invoke(app, [*command, *quick, "--image-size", "16", "--bad-pictures", "skip"])
    assert done.exit_code == 0, done.output
    (record,) = map(json.loads, (tmp_path / "runs" / "results.jsonl").read_text().splitlines())
    page = (tmp_path / "runs" / "report.html").read_text()
    for said in SAID:
        assert said in " ".join(done.output.split()), said
        assert any(said in note for note in record["metrics"]["data_notes"]), said
        assert said in page, said
    assert record["metrics"]["accuracy"] > 0.5
    assert record["settings"]["data"].endswith("photos:image_size=16,bad_pictures=skip")


def test_the_same_in_python(tmp_path: Path) -> None:
    take_photographs(tmp_path / "photos")
    splits = load_data(tmp_path / "photos", size=16, on_error="skip")
    assert splits.train.sample_shape == (3, 16, 16)
    assert len(splits.train) + len(splits.test) == 25
    for said in SAID:
        assert any(said in note for note in splits.notes)
    assert splits == load_image_folder(tmp_path / "photos", size=16, on_error="skip")
    with pytest.raises(SettingsError, match="on_error must be one of 'raise', 'skip'"):
        load_data(tmp_path / "photos", size=16, on_error="ignore")  # type: ignore[arg-type]
