# SPDX-License-Identifier: Apache-2.0
"""coverage.tsv is what its generator writes, and the generator reads sources and libraries rightly."""

from __future__ import annotations

from support.coverage import TABLE, EntryPoint, called, entry_points, named_in, soft_answer, table


def test_table_is_up_to_date() -> None:
    assert TABLE.read_text() == table(), "run `make generate` and commit the result"


def test_named_in() -> None:
    source = """
cu.cuMemAlloc(4)
native("cuMemFree_v2")(0)
text = "cuInit"
cu.cuNothingOfThisName()
call(cu.cuCtxSynchronize)
"""
    assert named_in(source) == {"cuMemAlloc", "cuMemFree", "cuCtxSynchronize"}
    assert called({"cuMemFree_v2", "cuMemAlloc"}) == {"cuMemFree", "cuMemAlloc"}


def test_soft_answers() -> None:
    entry = EntryPoint("cuX", ("cuX", "cuX_v2"))
    assert soft_answer(entry, frozenset()) == "implemented"
    assert soft_answer(entry, frozenset({"cuX"})) == "implemented from cuX_v2"
    assert soft_answer(entry, frozenset({"cuX_v2"})) == "implemented without cuX_v2"
    assert soft_answer(entry, frozenset({"cuX", "cuX_v2"})) == "NOT_SUPPORTED"


def test_every_name_of_the_header_is_listed() -> None:
    listed = [line.split("\t")[0] for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    assert listed == [entry.name for entry in entry_points()]
