# SPDX-License-Identifier: Apache-2.0
"""What must be true of each action of the lease machine at its moment."""

from __future__ import annotations

from process import Process

from gpuvirt.arbitration import events, ledger
from gpuvirt.arbitration.facts import Credit, Gpu, Move, Send, Signal, Signals, Store, Word

LAUNCHING = (Word.OPEN, Word.GRANTED, Word.STEP)


class Checks:
    """Compares actions with the truth outside: `words` and `alive`."""

    gpu: Gpu
    words: dict[str, Word]
    epochs: dict[str, int]
    alive: dict[int, Process]
    stopped: set[str]
    last_epoch: int

    def check_store(self, action: Store) -> None:
        mine = [process for process in self.alive.values() if process.job == action.contender]
        if action.word in LAUNCHING and self.words.get(action.contender) not in LAUNCHING:
            assert action.epoch > self.last_epoch, "epochs only grow"
            self.last_epoch = action.epoch
            back = (
                self.words.get(action.contender) is Word.DRAIN
            )  # a drain that did not end: its own work is still there
            # Or one of before a restart, that it never drained: the word was CLOSED all the time.
            back = back or action.word is Word.STEP
            for process in self.alive.values():
                mine_again = back and process.job == action.contender
                # What stands aside may launch nothing more (checked below), and what it has stays where it is.
                aside = self.may_stand_aside and self.words.get(process.job) is Word.DRAIN
                assert mine_again or aside or not process.on_gpu, (
                    f"{action.contender} was granted, {process} may be on the GPU"
                )
            for process in mine:
                # (What it took since the drain began is absent, and its own gate is shut until it has that.)
                assert back or process.resident >= process.charged, f"granted without all memory: {process}"
                process.on_gpu = True
        if action.word is Word.CLOSED:
            assert not any(process.on_gpu for process in mine), "closed before everybody drained"
        self.words[action.contender] = action.word
        self.epochs[action.contender] = action.epoch
        active = [key for key, word in self.words.items() if word is not Word.CLOSED]
        launching = [key for key in active if self.words[key] is not Word.DRAIN]
        assert len(launching) <= 1, launching
        assert len(active) <= 1 + self.may_stand_aside, active
        assert not launching or launching[0] not in self.stopped, "who is stopped was granted"

    @property
    def may_stand_aside(self) -> bool:
        return self.gpu.rules.overlap == "always" or self.gpu.rules.on_overrun == "stop"

    def check_signal(self, action: Signal) -> None:
        assert any(process.job == action.contender for process in self.alive.values()), "a signal to nobody"
        assert self.gpu.rules.on_overrun == "stop"
        if action.kind is Signals.STOP:
            assert self.words[action.contender] is Word.DRAIN
            assert not any(process.job == action.contender and process.asked for process in self.alive.values())
            self.stopped.add(action.contender)
        else:
            assert action.contender in self.stopped
            self.stopped.discard(action.contender)

    def check_send(self, action: Send) -> None:
        process = self.alive[action.client]
        assert process.job not in self.stopped, "a request to who is stopped"
        assert process.connected, "a request to nobody"
        assert process.asked is None, "one request at a time"
        if action.move is Move.EVICT:
            assert not process.on_gpu, "EVICT under running work"
            assert action.bytes >= events.find(self.gpu, action.client)[1].native, "fixed memory cannot be evicted"
        else:
            assert action.bytes >= process.charged
            _, client = events.find(self.gpu, action.client)
            assert action.credit <= action.bytes
            raised = client.request is not None and action.credit > client.request.before
            assert not raised or ledger.promised(self.gpu.clients()) <= self.gpu.capacity, "promised more than there is"
            assert action.credit >= process.allowance, "a promise was taken back without EVICT"
            process.before, process.allowance = process.allowance, action.credit
        process.asked, process.cancelled = action, False

    def check_credit(self, action: Credit) -> None:
        process = self.alive[action.client]
        assert process.connected, "credit for nobody"
        assert process.asked is not None, "credit for nothing"
        assert process.asked.move is Move.RESTORE, "credit for an EVICT"
        assert not process.cancelled, "credit after it was called off"
        process.cancelled = action.cancelled
        if not action.cancelled:
            assert process.allowance < action.bytes <= process.asked.bytes
            assert ledger.promised(self.gpu.clients()) <= self.gpu.capacity, "promised more than there is"
            process.allowance = action.bytes
