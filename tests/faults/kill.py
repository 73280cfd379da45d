"""Kill fits and shuffles at random moments, and see that what is run again loses nothing.

``python -m tests.faults.kill --kills 200`` takes some minutes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymc_streaming import preshuffle
from pymc_streaming.checkpoints import read_state
from pymc_streaming.errors import CheckpointError
from tests.faults import programs
from tests.tables import contents

__all__ = ["Tally", "kill_fits", "kill_shuffles", "main"]

# Forked from a process that has imported everything, they are at work at once.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pymc_streaming.trainer", "tests.faults.programs"])


@dataclass
class Tally:
    """What came of it.

    Parameters
    ----------
    kills : int
        Processes that were killed.
    runs : int
        Fits or shuffles that came to their end, after some kills.
    different : int
        Those whose result was another than without a kill.
    unreadable : int
        Checkpoints that could not be read.
    """

    kills: int = 0
    runs: int = 0
    different: int = 0
    unreadable: int = 0


def killed(work: Callable[..., Any], arguments: Sequence[Any], after: float) -> bool:
    """Run a process, and kill it after so many seconds; False if it had ended."""
    process = PROCESSES.Process(target=work, args=arguments)
    process.start()
    process.join(after)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{work.__name__}{arguments} failed.")
    return process.exitcode != 0


def again_and_again(
    work: Callable[..., Any],
    arguments: Sequence[Any],
    kills: int,
    seconds: float,
    chance: random.Random,
    tally: Tally,
    look: Callable[[], None],
) -> None:
    """Run the same until it ends, killing it so many times at most."""
    for number in range(kills + 1):
        after = chance.uniform(0.0, seconds) if number < kills else 3_600.0
        was_killed = killed(work, arguments, after)
        tally.kills += was_killed
        look()
        if not was_killed:
            break
    tally.runs += 1


def kill_fits(folder: Path, kinds: Sequence[str], kills: int, seed: int) -> Tally:
    """Kill fits of each kind `kills` times altogether."""
    chance, tally = random.Random(seed), Tally()
    table = folder / "table.parquet"
    programs.write_table(table)
    expected, took = {}, {}
    for kind in kinds:
        for name in ("warm", "whole"):  # the first one fills caches of compilers
            result = folder / f"{name}.json"
            began = time.perf_counter()
            killed(programs.run, (kind, table, folder / f"{name} {kind}", result), 3_600.0)
            took[kind], expected[kind] = time.perf_counter() - began, result.read_text()
    while tally.kills < kills:
        kind = kinds[tally.runs % len(kinds)]
        checkpoints, result = folder / f"{tally.runs}", folder / "result.json"
        result.unlink(missing_ok=True)

        def look(checkpoints: Path = checkpoints) -> None:
            for path in checkpoints.glob("*.safetensors"):
                try:
                    read_state(path)
                except CheckpointError:
                    tally.unreadable += 1

        most = min(chance.randint(1, 6), kills - tally.kills)
        arguments = (kind, table, checkpoints, result)
        again_and_again(programs.run, arguments, most, took[kind], chance, tally, look)
        if result.read_text() != expected[kind]:
            tally.different += 1
            print(f"{kind}, {checkpoints}: another result", file=sys.stderr)
        else:
            shutil.rmtree(checkpoints)
    return tally


def shuffle(table: Path, output: Path) -> None:
    """What a process does until it is killed."""
    preshuffle(table, output, seed=3, memory_limit="24MiB", progressbar=False, overwrite=True)


def kill_shuffles(folder: Path, kills: int, seed: int) -> Tally:
    """The same with pre-shuffles."""
    chance, tally = random.Random(seed), Tally()
    table = folder / "to shuffle.parquet"
    programs.write_table(table, 600_000)
    took = 0.0
    for name in ("warm", "whole"):
        began = time.perf_counter()
        killed(shuffle, (table, folder / name), 3_600.0)
        took = time.perf_counter() - began
    expected = contents(folder / "whole")
    while tally.kills < kills:
        output = folder / f"shuffled {tally.runs}"
        most = min(chance.randint(1, 6), kills - tally.kills)
        again_and_again(shuffle, (table, output), most, took, chance, tally, lambda: None)
        tally.different += contents(output) != expected
        shutil.rmtree(output)
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, and say what came of it; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="(default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--kinds", nargs="+", choices=list(programs.KINDS), metavar="KIND")
    options = parser.parse_args(arguments)
    kinds = options.kinds or list(programs.KINDS)
    with tempfile.TemporaryDirectory() as folder:
        quarter = options.kills // 4
        fits = kill_fits(Path(folder), kinds, options.kills - quarter, options.seed)
        print("fits:", fits, flush=True)
        shuffles = kill_shuffles(Path(folder), quarter, options.seed)
        print("shuffles:", shuffles)
    lost = sum(each.different + each.unreadable for each in (fits, shuffles))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
