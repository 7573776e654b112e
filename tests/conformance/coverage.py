# SPDX-License-Identifier: Apache-2.0
"""Writes coverage.tsv beside it: every documented driver entry point, what the soft GPU does, which cases call it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.coverage import TABLE, table

text = table()
TABLE.write_text(text)
lines = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
implemented = [line for line in lines if line[1] != "NOT_SUPPORTED"]
covered = sum(line[2] != "-" for line in implemented)
print(f"{TABLE.name}: {len(lines)} entry points, {len(implemented)} implemented, {covered} of these covered by cases")
