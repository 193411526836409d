"""The side of a TaskPool that works: takes orders of the master until it is let go."""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import Error, PeerFailed, Timeout
from ..parcel import Parcel, receive
from .outcome import Outcome, answer, attempt

if TYPE_CHECKING:
    from ..comm import Communicator

LONG = 0.025  # seconds after which no further task of a batch is begun: others may take them


class Worker:
    """A rank that works for the master at rank 0 of `pair`."""

    def __init__(self, rank: int, pair: Communicator) -> None:
        self._rank, self._pair = rank, pair
        self._sending = threading.Lock()
        self._busy = False
        self._over = threading.Event()

    def serve(self) -> None:
        """Until the master lets it go. Raises PeerFailed if that dies; Timeout if it gives no sign of life."""
        pulse = threading.Thread(target=self._pulse, name=f"pool: pulse of rank {self._rank}", daemon=True)
        pulse.start()
        try:
            while self._obey():
                pass
        except (PeerFailed, Timeout) as error:
            raise type(error)(f"TaskPool: {renamed(str(error), self._rank)}") from None
        except BaseException as error:
            self._pair._abort(f"ended with {type(error).__name__}: {error}"[:400])
            raise
        finally:
            self._over.set()
            pulse.join()
        self._pair.close()

    def _obey(self) -> bool:
        """One order; False if it was the last."""
        arrival = receive(self._pair, 0)
        try:
            order = arrival.open()
        except Exception as error:  # cannot be unpickled here
            answer(0.0, error).send(self._pair, 0)
            return True
        if order:
            calls, retries, retry_on = order
            self._busy, begin = True, time.perf_counter()
            outcomes: list[Outcome] = []
            for call in calls:
                outcomes.append(attempt(call, retries, retry_on))
                if time.perf_counter() - begin > LONG:
                    break
            parcel = answer(time.perf_counter() - begin, outcomes)
            with self._sending:
                self._busy = False
                parcel.send(self._pair, 0)
        return order is not False  # None is a sign of life

    def _pulse(self) -> None:
        """A thread: signs of life while a task takes long."""
        while not self._over.wait(self._pair.timeout / 8):
            with self._sending:
                if self._busy:
                    with suppress(Error):  # the other thread will see it
                        Parcel(None).send(self._pair, 0)


def renamed(text: str, rank: int) -> str:
    """What an error of the pair of the master and rank `rank` says, with the ranks of all."""
    return re.sub(r"\brank 1\b", f"rank {rank}", text)
