"""The threads that run a compiled step together."""

from __future__ import annotations

import threading
import weakref

from gpt_neox_japanese.inference.kernel_step import GO, Plan, begin, serve

__all__ = ["Team"]

# About a millisecond: longer than what happens between two tokens, much shorter than a person's
# next question.
_LOOKS_BEFORE_SLEEP = 32_000

_STEPS_AT_A_TIME = 1 << 40  # as many as there are


class Team:
    """Runs steps of a plan on as many threads as it was made for.

    The caller's thread is one of them. The others keep looking for the next step for a moment, and
    then sleep. They end when the team is no longer used.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._meetings = self._steps = 0
        self._bell = _Bell(plan)
        weakref.finalize(self, self._bell.end)
        for me in range(1, len(plan.normed)):
            threading.Thread(target=self._bell.work, args=(me,), daemon=True).start()

    def step(self) -> None:
        """Do what `plan.job` and `plan.tokens` say; the caller sees to it that nobody else does."""
        self._bell.ring()
        self._meetings, self._steps = serve(self._plan, 0, self._meetings, self._steps, 1, -1)


class _Bell:
    """What the other threads share with the team. They do not keep the team itself alive."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._changed = threading.Condition()
        self._sleepers = 0
        self._ended = False

    def ring(self) -> None:
        begin(self._plan.counters)
        if self._sleepers:
            with self._changed:
                self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def work(self, me: int) -> None:
        meetings = steps = 0
        while True:
            meetings, steps = serve(
                self._plan, me, meetings, steps, _STEPS_AT_A_TIME, _LOOKS_BEFORE_SLEEP
            )
            with self._changed:
                self._sleepers += 1
                # A bell that was rung after the last look is seen here: it rang before it looked
                # for sleepers.
                while self._plan.counters[GO] == steps and not self._ended:
                    self._changed.wait()
                self._sleepers -= 1
            if self._ended:
                return
