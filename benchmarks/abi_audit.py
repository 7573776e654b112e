#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every documented request for a driver function, through the shim: whose function is the answer, and of which ABI?

Asks for every (name, version, stream variant) of NVIDIA's headers through both ABIs of cuGetProcAddress, with right
and wrong versions and flags, and for every symbol through dlsym, and compares each pointer with the symbols of the
shim and of the driver behind it. Exits 1 when an answer is wrong, and names it.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

from gpuvirt import paths
from harness import abi, bench, probes, record

SHOWN = 20  # wrong answers that are printed


def ask(work: bench.Bench, symbols: list[str], questions: list[abi.Question]) -> tuple[int, list[abi.Answer]]:
    """(version of the driver, answers). Raises ProbeFailed."""
    program = probes.build("abi_audit", work.scratch)
    listed = work.scratch / "symbols"
    listed.write_text("\n".join(symbols) + "\n")
    driver = paths.library("softgpu/libcuda.so.1")
    extra = {"LD_PRELOAD": str(paths.library("libgpuvirt-shim.so")), "GPUVIRT_DRIVER": str(driver)}
    done = subprocess.run(
        [str(program), str(driver), str(listed)],
        input="".join(f"{question.line()}\n" for question in questions),
        env=work.device.environ(extra),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode != 0:
        raise probes.ProbeFailed(f"abi_audit ended with exit code {done.returncode}: {done.stderr.strip()}")
    first, *lines = done.stdout.splitlines()
    if len(lines) != len(questions):
        raise probes.ProbeFailed(f"abi_audit answered {len(lines)} of {len(questions)} questions")
    return int(first.split()[1]), [abi.Answer.parse(line) for line in lines]


def questions_of(cuda: str, table: Any, driver: int) -> list[tuple[str, abi.Question]]:
    """(group, question): one group a documented row, one for wrong names, one for dlsym."""
    newest = max(row.version for row in table.rows)
    found = [
        (f"{row.base}@{row.version}{row.variant}", question)
        for row in table.rows
        for question in abi.row_questions(row, newest, driver)
    ]
    if cuda == "13.5":
        found += [("wrong names", question) for question in abi.name_questions((0, 12000, newest, driver + 10))]
        found += [("dlsym", question) for question in abi.symbol_questions(table.symbols)]
    return found


def audit(work: bench.Bench) -> dict[str, Any]:
    """Asks all there is to ask. Raises ProbeFailed."""
    tables, left_out = {}, []
    for cuda in abi.WHEELS:
        try:
            tables[cuda] = abi.read(cuda)
        except FileNotFoundError as error:
            if cuda == "13.5":
                raise
            left_out.append(cuda)
            work.say(f"left out: {error}")
    symbols = sorted({symbol.name for table in tables.values() for symbol in table.symbols})
    driver, _ = ask(work, symbols, [])
    total: Counter[tuple[str, str]] = Counter()
    correct: Counter[tuple[str, str]] = Counter()
    rows, wrong = {}, []
    for cuda, table in tables.items():
        rules = abi.Rules(table, driver)
        asked = questions_of(cuda, table, driver)
        _, answers = ask(work, symbols, [question for _, question in asked])
        core = {f"{row.base}@{row.version}{row.variant}" for row in table.rows if not extension(table, row)}
        failed = set()
        for (group, question), seen in zip(asked, answers, strict=True):
            expected = rules.answer(question)
            kind = rules.kinds.get(question.name or "", "wrong name") if question.way in ("v1", "v2") else "any"
            for key in (("way", question.way), ("class", kind), ("headers", cuda)):
                total[key] += 1
                correct[key] += seen == expected
            if seen != expected:
                failed.add(group)
                wrong.append({"headers": cuda, "row": group, "asked": question.line(), "saw": vars(seen),
                              "expected": vars(expected)})  # fmt: skip
        others = {f"{row.base}@{row.version}{row.variant}" for row in table.rows} - core
        rows[cuda] = {"rows": len(core), "rows_correct": len(core - failed), "display_and_profiler_rows": len(others),
                      "display_and_profiler_rows_correct": len(others - failed)}  # fmt: skip
    show(rows, total, correct, wrong)
    answers_total = sum(n for (kind, _), n in total.items() if kind == "way")
    answers_correct = sum(n for (kind, _), n in correct.items() if kind == "way")
    breakdown = {
        kind: {name: {"total": total[k, name], "correct": correct[k, name]} for k, name in sorted(total) if k == kind}
        for kind in ("way", "class", "headers")
    }
    return {
        "abi_total": answers_total,
        "abi_correct": answers_correct,
        "driver_version": driver,
        "documented": rows,
        "headers_left_out": left_out,
        "by": breakdown,
        "wrong": wrong[:200],
    }


def extension(table: Any, row: Any) -> bool:
    """Is it of the GL, EGL, VDPAU or profiler headers?"""
    return row.symbol in {symbol.name for symbol in table.symbols if symbol.header != "cuda.h"}


def show(rows: dict[str, Any], total: Counter[Any], correct: Counter[Any], wrong: list[dict[str, Any]]) -> None:
    """The table for people, then what is wrong by name."""
    for cuda, counts in rows.items():
        others = (counts["display_and_profiler_rows_correct"], counts["display_and_profiler_rows"])
        print(
            f"CUDA {cuda}: {counts['rows_correct']} of {counts['rows']} documented requests of cuda.h are answered "
            f"right, {others[0]} of {others[1]} of GL, EGL, VDPAU and the profiler"
        )
    lines = [(f"{kind} {name}", str(total[kind, name]), str(correct[kind, name])) for kind, name in sorted(total)]
    print(record.table(("answers by", "asked", "right"), lines))
    for each in wrong[:SHOWN]:
        seen, expected = each["saw"], each["expected"]
        print(f"WRONG {each['headers']} {each['asked']}: {tuple(seen.values())}, not {tuple(expected.values())}")
    if len(wrong) > SHOWN:
        print(f"... and {len(wrong) - SHOWN} more")


if __name__ == "__main__":
    results: dict[str, Any] = {}

    def body(work: bench.Bench) -> dict[str, Any]:
        results.update(audit(work))
        return results

    code = bench.run("abi_audit", record.parser(__doc__), 64 << 20, body, ("abi_total", "abi_correct"))
    sys.exit(code or int(results.get("abi_total", 0) == 0 or results["abi_total"] != results["abi_correct"]))
