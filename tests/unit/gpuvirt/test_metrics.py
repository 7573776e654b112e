# SPDX-License-Identifier: Apache-2.0
"""The text format of Prometheus, by its grammar (prometheus.io/docs/instrumenting/exposition_formats)."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvirt.metrics import COUNTER, GAUGE, HISTOGRAM, Buckets, Family, families, render

LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)")
VALUE = re.compile(r'="((?:[^"\\\n]|\\["\\n])*)"')


def parse(text: str) -> dict[str, list[tuple[list[str], float]]]:
    """(label values, value) of all samples by name. Fails on anything that is not in the grammar."""
    found: dict[str, list[tuple[list[str], float]]] = {}
    assert text == "" or text.endswith("\n")
    helped: set[str] = set()
    current = ""
    for line in text.split("\n")[:-1]:
        if line.startswith("# "):
            word, name, rest = line[2:].split(" ", 2)
            if word == "HELP":
                assert name not in helped and "\n" not in rest
                helped.add(name)
            else:
                assert word == "TYPE" and rest in ("counter", "gauge") and name in helped and name not in found
                current, found[name] = name, []
            continue
        match = SAMPLE.fullmatch(line)
        assert match is not None and match.group(1) == current, line
        values = [re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), v) for v in VALUE.findall(match[2] or "")]
        found[current].append((values, float(match.group(3))))
    return found


def test_a_family() -> None:
    family = Family("gpuvirt_swap_bytes_total", COUNTER, "Bytes.\nBoth ways \\ here.")
    family.add(12, gpu="0", direction="out")
    family.add(3.5, gpu="0", direction="in")
    assert render([family]) == (
        "# HELP gpuvirt_swap_bytes_total Bytes.\\nBoth ways \\\\ here.\n"
        "# TYPE gpuvirt_swap_bytes_total counter\n"
        'gpuvirt_swap_bytes_total{gpu="0",direction="out"} 12\n'
        'gpuvirt_swap_bytes_total{gpu="0",direction="in"} 3.5\n'
    )


def test_a_histogram() -> None:
    family = Family("gpuvirt_switch_seconds", HISTOGRAM, "Switches.")
    family.add(Buckets((0.001, 1.0), (2, 0, 3), 7.5), gpu="0")
    assert render([family]).splitlines()[1:] == [
        "# TYPE gpuvirt_switch_seconds histogram",
        'gpuvirt_switch_seconds_bucket{gpu="0",le="0.001"} 2',
        'gpuvirt_switch_seconds_bucket{gpu="0",le="1.0"} 2',
        'gpuvirt_switch_seconds_bucket{gpu="0",le="+Inf"} 5',
        'gpuvirt_switch_seconds_sum{gpu="0"} 7.5',
        'gpuvirt_switch_seconds_count{gpu="0"} 5',
    ]


def test_a_family_without_samples_is_left_out() -> None:
    assert render(families([("a_bytes", GAUGE, "A.")]).values()) == ""


@given(
    st.dictionaries(st.text(max_size=8), st.floats() | st.integers(-(1 << 70), 1 << 70), max_size=5),
)
def test_any_text_and_any_number(values: dict[str, float]) -> None:
    family = Family("gpuvirt_thing_ratio", GAUGE, "Things.")
    for text, number in values.items():
        family.add(number, name=text)
    seen = parse(render([family])).get("gpuvirt_thing_ratio", [])
    assert [labels for labels, _ in seen] == [[text] for text in values]
    for (_, found), number in zip(seen, values.values(), strict=True):
        assert found == float(number) or (math.isnan(found) and math.isnan(number))


@pytest.mark.parametrize(
    ("family", "words"),
    [
        (Family("swap_bytes", GAUGE, "x"), "not a name"),
        (Family("gpuvirt_Swap", GAUGE, "x"), "not a name"),
        (Family("gpuvirt_swaps", COUNTER, "x"), "end in _total"),
        (Family("gpuvirt_swaps_total", GAUGE, "x"), "end in _total"),
        (Family("gpuvirt_swaps", "summary", "x"), "end in _total"),
        (Family("gpuvirt_swaps_total", HISTOGRAM, "x"), "end in _total"),
        (Family("gpuvirt_swaps", HISTOGRAM, "x", [({}, 1)]), "has 1"),
        (Family("gpuvirt_swaps", GAUGE, "x", [({}, Buckets((), (1,), 0))]), "is a gauge"),
        (Family("gpuvirt_swaps", HISTOGRAM, "x", [({}, Buckets((1, 2), (1, 1), 0))]), "do not go up"),
        (Family("gpuvirt_swaps", HISTOGRAM, "x", [({}, Buckets((2, 1), (1, 1, 1), 0))]), "do not go up"),
        (Family("gpuvirt_swaps", HISTOGRAM, "x", [({}, Buckets((1, math.inf), (1, 1, 1), 0))]), "do not go up"),
        (Family("gpuvirt_swaps", HISTOGRAM, "x", [({}, Buckets((1,), (1, -1), 0))]), "counts"),
        (Family("gpuvirt_swaps", HISTOGRAM, "x", [({}, Buckets((1,), (1, 1), -1))]), "the sum"),
        (Family("gpuvirt_swaps", GAUGE, ""), "no help"),
        (Family("gpuvirt_swaps", GAUGE, "x", [({"pid": "1"}, 1)]), "must not have"),
        (Family("gpuvirt_swaps", GAUGE, "x", [({"a b": "1"}, 1)]), "must not have"),
        (Family("gpuvirt_swaps", GAUGE, "x", [({"a": "1", "b": "2"}, 1), ({"b": "2", "a": "1"}, 1)]), "two samples"),
        (Family("gpuvirt_swaps_total", COUNTER, "x", [({}, -1)]), "counts -1"),
        (Family("gpuvirt_swaps_total", COUNTER, "x", [({}, math.nan)]), "counts nan"),
    ],
)
def test_what_would_not_do(family: Family, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        render([family])


def test_a_name_is_there_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        render([Family("gpuvirt_a", GAUGE, "x"), Family("gpuvirt_a", GAUGE, "x")])
