# SPDX-License-Identifier: Apache-2.0
"""Pictures in docs/pictures: sound files, and drawn as what they are made of says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

from gpuvirt.cli.timeline import Slice, Track

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
sys.path.insert(0, str(PICTURES))

from draw import picture_of_text, picture_of_tracks  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


def test_committed_pictures_are_sound() -> None:
    for name in ("trace.svg", "top.svg"):
        text = (PICTURES / name).read_text()
        assert ElementTree.fromstring(text).tag == f"{SVG}svg" and "docs/pictures/make.py" in text
        assert len(text) < 60_000 and not re.search(r"https?://(?!www\.w3\.org)", text)


def test_slices_are_where_their_times_are() -> None:
    arguments = {"epoch": 3}
    tracks = [
        Track("a<b (j1)", "lease", [Slice("held", 100, 200, {}, flow=7), Slice("waits", 200, None, dict(arguments))]),
        Track("c (j2)", "lease", [Slice("held", 210, 900, dict(arguments), ends=7), Slice("drain", 900, 1000)]),
        Track("c (j2)", "on the device", points=[(0, 0), (500, 4 << 20)]),
    ]
    root = ElementTree.fromstring(picture_of_tracks(tracks, 100, 500))
    boxes = [box for box in root.iter(f"{SVG}rect") if box.find(f"{SVG}title") is not None]
    assert len(boxes) == 3, "what lies outside is not drawn"
    held, waits, other = (float(box.get("x", 0)) for box in boxes)
    assert held < waits < other
    wide = [float(box.get("width", 0)) for box in boxes]
    assert abs(wide[0] * 3 - wide[1]) < 1 and abs(other - waits - wide[0] / 10) < 1
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert words.count("c (j2)") == 1 and "a<b (j1)" in words and "4 MiB" in words
    assert len(list(root.iter(f"{SVG}circle"))) == 1, "one arrow"


def test_a_terminal() -> None:
    text = picture_of_text("gpuvirt top", ["\x1b[1mJOB  NAME\x1b[0m", "j1   a & b  \x1b[32mrunning\x1b[0m"])
    found = ElementTree.fromstring(text).iter(f"{SVG}text")
    pieces = {one.text: (float(one.get("x", 0)), one.get("y")) for one in found}
    assert set(pieces) == {"$ gpuvirt top", "JOB", "NAME", "j1", "a & b", "running"}
    assert pieces["NAME"][0] == pieces["a & b"][0] and pieces["j1"][0] == pieces["JOB"][0]
    assert pieces["j1"][1] == pieces["running"][1] != pieces["JOB"][1]
