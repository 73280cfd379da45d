"""Reading ahead in the background: in order, with errors in their place."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

__all__ = ["read_ahead", "read_parallel"]

# A reader that hangs in a system call is left behind after this many seconds.
JOIN_SECONDS = 10.0

# Threads that read are marked here.
_here = threading.local()


def read_ahead[Item](items: Iterable[Item]) -> Generator[Item]:
    """Run an iterator in a background thread.

    Parameters
    ----------
    items : iterable
        What to run, as far as it goes by itself; closed when it is over, if it can be.

    Yields
    ------
    Item
        The same items in the same order. An error of the iterator is raised here, after the
        items that came before it. Closing this iterator ends the thread.
    """
    channel: _Channel[Item] = _Channel(0, lambda _: 0)
    thread = threading.Thread(
        target=channel.pump, args=(items,), name="pymc-streaming-reader", daemon=True
    )
    thread.start()
    try:
        yield from channel
    finally:
        channel.close()
        # A reader may be what collects this as garbage: it would wait for itself.
        if not getattr(_here, "is_reader", False):
            thread.join(JOIN_SECONDS)


def read_parallel[Key, Item](
    read: Callable[[Key], Iterable[Item]],
    keys: Sequence[Key],
    num_workers: int,
    max_bytes: int,
    nbytes: Callable[[Item], int],
) -> Generator[Item]:
    """Run several iterators at once, and deliver their items as though one after another.

    Parameters
    ----------
    read : callable
        From a key to an iterator of items.
    keys : sequence
        Which iterators, in which order.
    num_workers : int
        Threads, and iterators that are open at once.
    max_bytes : int
        Bytes that may wait to be taken, over all iterators. An item of each may always wait.
    nbytes : callable
        Bytes of an item.

    Yields
    ------
    Item
        Items of the first key, then of the second, and so on.
    """
    # Each has room of its own, so the one that is being delivered can always make progress.
    channels: deque[_Channel[Item]] = deque()
    threads: deque[threading.Thread] = deque()
    waiting = iter(keys)

    def start_one() -> None:
        for key in waiting:
            channel: _Channel[Item] = _Channel(max_bytes // num_workers, nbytes)
            thread = threading.Thread(
                target=channel.pump, args=(read(key),), name="pymc-streaming-worker", daemon=True
            )
            channels.append(channel)
            threads.append(thread)
            thread.start()
            return

    try:
        for _ in range(num_workers):
            start_one()
        while channels:
            yield from channels[0]
            channels.popleft()
            threads.popleft().join()
            start_one()
    finally:
        for channel in channels:
            channel.close()
        for thread in threads:
            thread.join(JOIN_SECONDS)


class _Channel[Item]:
    """A queue between two threads, bounded in bytes, that ends or fails."""

    def __init__(self, max_bytes: int, nbytes: Callable[[Item], int]) -> None:
        self._max_bytes, self._nbytes = max_bytes, nbytes
        self._items: deque[Item] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None

    def pump(self, items: Iterable[Item]) -> None:
        """Put all items in, until closed. The thread that writes runs this."""
        _here.is_reader = True
        error: BaseException | None = None
        iterator: Any = iter(items)
        try:
            for item in iterator:
                if not self._put(item):
                    break
        except BaseException as caught:  # noqa: BLE001 - raised again in the thread that reads
            error = caught
        finally:
            if hasattr(iterator, "close"):
                iterator.close()
            with self._changed:
                self._ended, self._error = True, error
                self._changed.notify_all()

    def close(self) -> None:
        """Take nothing more; the thread that writes stops at its next item."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def _put(self, item: Item) -> bool:
        size = self._nbytes(item)
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closed or not self._items or self._waiting_bytes + size <= self._max_bytes
                )
            )
            if self._closed:
                return False
            self._items.append(item)
            self._waiting_bytes += size
            self._changed.notify_all()
        return True

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended)
                if not self._items:
                    break
                item = self._items.popleft()
                self._waiting_bytes -= self._nbytes(item)
                self._changed.notify_all()
            yield item
            del item  # not held while waiting for the next
        if self._error is not None:
            raise self._error
