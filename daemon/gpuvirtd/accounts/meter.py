# SPDX-License-Identifier: Apache-2.0
"""Keeps the accounts of one GPU. Pure: it is told the facts after every decision, before anybody else hears of it.

Between two decisions nothing changes, so what runs at one of them has run since the one before.
"""

from __future__ import annotations

from typing import Protocol

from gpuvirt.arbitration.facts import Contender, Gpu
from gpuvirtd.accounts.account import Account, Counts, Mode, counted, mode_of


class Books(Protocol):
    """Where the accounts of a GPU are kept."""

    def open(self, gpu: str, job: str) -> Account:
        """A new account."""
        ...

    def save(self, account: Account) -> None:
        """It has changed."""
        ...

    def busy(self, account: Account, now: int) -> int:
        """ns that the processes of its job on this GPU have been busy for in all."""
        ...

    def missing(self, gpu: str, job: str) -> bool:
        """Is a process of before the restart not back yet, and may still have the GPU?"""
        ...


class Meter:
    """The accounts of one GPU by the job."""

    def __init__(self, gpu: str, books: Books) -> None:
        self.gpu = gpu
        self.books = books
        self.accounts: dict[str, Account] = {}

    def look(self, gpu: Gpu, now: int) -> None:
        """The facts are as they are since `now`."""
        contenders = gpu.contenders
        if len(self.accounts) > len(contenders):
            self._leave(contenders, now)
        begin = []
        for key, contender in contenders.items():
            account = self.accounts.get(key)
            if account is None:
                account = self.accounts[key] = self.books.open(self.gpu, key)
            if account.settling and not self._settled(key, contender):
                continue
            mode, counts = mode_of(contender), counted(contender)
            if (
                account.mode is not mode
                or account.wait_since != contender.waiting_since
                or account.seen != counts
                or account.settling
            ):
                if mode is Mode.NONE:
                    self._change(account, contender, mode, counts, now)
                else:
                    begin.append((account, contender, mode, counts))
        for account, contender, mode, counts in begin:  # last: killed in between, nobody has it rather than two
            self._change(account, contender, mode, counts, now)

    def _change(self, account: Account, contender: Contender, mode: Mode, counts: Counts, now: int) -> None:
        account.settling = False
        if account.mode is not mode:
            reads = mode is Mode.ALONE or account.mode is Mode.ALONE
            account.change(mode, now, self.books.busy(account, now) if reads else 0)
        if account.wait_since != contender.waiting_since:
            account.waits_since(contender.waiting_since, now)
        account.count(counts)
        self.books.save(account)

    def _settled(self, key: str, contender: Contender | None) -> bool:
        """Its processes of before the restart are back, and nothing of theirs can be on the GPU; or it has it anew."""
        if self.books.missing(self.gpu, key):
            return False
        if contender is None or contender.charge_from is not None:
            return True
        return all(client.drained for client in contender.clients.values())

    def _leave(self, contenders: dict[str, Contender], now: int) -> None:
        """Accounts of jobs that are not on the GPU any more."""
        for key in self.accounts.keys() - contenders.keys():
            account = self.accounts[key]
            if account.settling and not self._settled(key, None):
                continue
            account.settling = False
            if account.mode is not Mode.NONE or account.wait_since is not None:
                account.close(now, self.books.busy(account, now) if account.mode is Mode.ALONE else 0)
                self.books.save(account)
