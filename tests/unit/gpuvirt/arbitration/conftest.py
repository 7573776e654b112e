# SPDX-License-Identifier: Apache-2.0
"""Makes the folder support importable, and this one: a machine of one test is the base of another's."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "support"))

from hypothesis import settings

# A loaded machine makes single examples slow; nothing here depends on time.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
