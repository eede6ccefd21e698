"""What the fuzzers share: cases in child processes with limits, and a result that grows.

A fuzzer is a subclass of `Fuzzer`, and a script of a few lines around `run(ThatClass())`. Each case
is drawn from the seed and its number, so that it can be made again alone: `--only NUMBER`. Children
are forked from a process that has imported and compiled everything, and carry out many cases each,
in memory where there is a file system of that kind; what ends a child, ends one case.
A case may end in two ways: it works, or an error of ours says why not. What else happens is a
finding: another exception (a lack of memory too), a signal, a hang; a file that is written outside
of the folder for results, a connection that is opened, a program that is started.

`--state` is the result file, and where the next call with the same seed goes on. Where the package
has changed since, what was counted is moved to `earlier`, with its commit, and new cases are tried.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import hashlib
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import gpt_neox_japanese
from gpt_neox_japanese.errors import NeoXJapaneseError

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from harness import circumstances

__all__ = ["Fuzzer", "Guard", "circumstances", "memory_folder", "place_of", "run"]

_PACKAGE = os.path.realpath(Path(gpt_neox_japanese.__file__).parent)
_CASES_A_CHILD = 1000
_CASES_A_COLLECTION = 50
_IN_MEMORY = Path("/dev/shm")  # noqa: S108
_MAX_EXAMPLES = 100  # that are kept, one for each place in the code; all findings are counted
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
# The one program that is ours: templates are rendered by it.
_OWN_PROGRAM = os.path.join(_PACKAGE, "tokenizer", "template_worker.py")
_CONNECTIONS = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname")
# Where among the arguments of an event the paths are that it changes, and their directories.
_CHANGES: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.utime": ((0, 3),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
}
# The others change a name, and leave alone what it leads to if it is a link.
_FOLLOWING = ("open", "os.truncate", "os.chmod", "os.chown", "os.utime")


class Fuzzer(ABC):
    """What a fuzzer must say.

    Attributes:
        packages: Whose versions the result names.
        seconds_a_case: A case that has computed or slept for longer is a hang. While it waits for
            a processor that others have, its time stands still.
        memory: Bytes that a child may take beyond what it has at its beginning.
    """

    packages: ClassVar[list[str]] = ["numpy"]
    seconds_a_case: ClassVar[int] = 60
    memory: ClassVar[int] = 4 << 30

    def prepare(self, folder: Path) -> None:
        """Import, compile and make what all cases begin with; called once, before any fork.

        Args:
            folder: Empty; it stays, and cases may read it.
        """
        self.base = folder

    @abstractmethod
    def make(self, draw: random.Random, folder: Path) -> str:
        """Make the files of one case.

        Args:
            draw: Decides everything; nothing else may be random.
            folder: Empty; only this case sees it.

        Returns:
            What was done, in a line.
        """

    @abstractmethod
    def attempts(self, folder: Path, results: Path) -> Mapping[str, Callable[[], object]]:
        """What is tried with the files of a case, one after the other.

        Args:
            folder: What `make` filled.
            results: Empty; the only place where something may be written.

        Returns:
            Calls by their names. Each works, or raises a `NeoXJapaneseError`.
        """


class EscapeError(BaseException):
    """Something reached beyond the folder for results; no handler may swallow it."""


class Guard:
    """Hears what Python's own functions do, and stops what reaches outside."""

    def __init__(self) -> None:
        self._allowed: str | None = None
        self.escapes: list[str] = []
        sys.addaudithook(self._hear)

    def watch(self, results: Path | None) -> None:
        """Allow changes only below a folder; None allows everything."""
        self._allowed = None if results is None else os.path.realpath(results)
        self.escapes = []

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._allowed is None:
            return
        changed: list[tuple[Any, int]] = []
        if event == "open":
            path, _, flags = arguments
            changed = [(path, -1)] if isinstance(flags, int) and flags & _WRITES else []
        elif event in _CHANGES:
            changed = [
                (arguments[path], -1 if folder is None else arguments[folder])
                for path, folder in _CHANGES[event]
            ]
        elif event in _CONNECTIONS or (event in _PROGRAMS and not _is_own(event, arguments)):
            self._stop(f"{event} {arguments!r:.300}")
        for path, folder in changed:
            if isinstance(path, int):
                continue
            name = os.fsdecode(path)
            if folder != -1:  # the path begins at an open directory
                name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)
            if not self._is_inside(name, follow=event in _FOLLOWING):
                self._stop(f"{event} of {name!r}")

    def _is_inside(self, path: str, *, follow: bool) -> bool:
        folder, name = os.path.split(path)
        real = os.path.realpath(path) if follow else os.path.join(os.path.realpath(folder), name)
        if real.startswith(_PACKAGE) and "__pycache__" in real:
            return True  # a kernel for a combination of dtypes that nobody had before
        return real == os.devnull or f"{real}/".startswith(f"{self._allowed}/")

    def _stop(self, what: str) -> None:
        self.escapes.append(what)
        raise EscapeError(what)


def _is_own(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an event starts the program that renders templates."""
    if event != "subprocess.Popen":
        return False
    program, words = arguments[:2]
    return bool(program == sys.executable and os.path.realpath(words[-1]) == _OWN_PROGRAM)


def run(fuzzer: Fuzzer) -> None:
    """Go on from the state file until enough cases are done or time is up; then end the process.

    Args:
        fuzzer: What to try.
    """
    description = (sys.modules["__main__"].__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cases", type=int, default=1000, help="of all runs together")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, help="result file, where the next call goes on")
    parser.add_argument("--only", type=int, help="one case, with tracebacks; its files are kept")
    options = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder is removed
    os.environ["HF_HUB_OFFLINE"] = "1"  # before anything reads it
    sys.dont_write_bytecode = True  # modules that a case imports first are no finding
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory_folder()) as name:
        folder = Path(name)
        (folder / "base").mkdir()
        fuzzer.prepare(folder / "base")
        gc.collect()
        gc.freeze()  # what is there now is never looked through again, nor copied for it by a fork
        if options.only is not None:
            _carry_out_one(fuzzer, options.seed, options.only)
            return
        state = _carry_out(fuzzer, options, folder)
    found = sum(state["findings"].values())
    print(f"{state['cases']:,} cases: {state['outcomes']}, findings: {state['findings']}")
    for run in state["earlier"]:
        print(f"before, at {run['commit']}: {run['cases']:,} cases, findings: {run['findings']}")
    sys.exit(found > 0)


def _carry_out(fuzzer: Fuzzer, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    state = _read_state(options, fuzzer.packages)
    outcomes, findings = Counter(state["outcomes"]), Counter(state["findings"])
    processor_seconds = state["processor_seconds"]
    before = sum(run["cases"] for run in state["earlier"])
    end = time.monotonic() + options.seconds
    while (first := before + state["cases"]) < options.cases and time.monotonic() < end:
        numbers = range(first, min(first + _CASES_A_CHILD, options.cases))
        for report in _in_child(fuzzer, options.seed, numbers, end, folder):
            state["cases"] += 1
            for attempt, outcome, detail in report["attempts"]:
                if outcome in ("works", "refused"):
                    outcomes[f"{attempt}: {outcome}"] += 1
                    continue
                findings[outcome] += 1
                finding = {"case": report["case"], "what": report["what"], "attempt": attempt}
                finding |= {"outcome": outcome, "place": place_of(detail), "detail": detail}
                known = [(e["attempt"], e["outcome"], e["place"]) for e in state["examples"]]
                if (attempt, outcome, finding["place"]) not in known:
                    state["examples"] = [*state["examples"], finding][:_MAX_EXAMPLES]
                    print(
                        f"{report['case']}: {report['what']!a}\n    {attempt}: {outcome}", end=" "
                    )
                    print(f"at {finding['place']}: {detail.strip().splitlines()[-1]!a:.200}")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        state["processor_seconds"] = round(processor_seconds + used.ru_utime + used.ru_stime, 1)
        state |= {"outcomes": dict(sorted(outcomes.items())), "findings": dict(findings)}
        if options.state is not None:
            text = json.dumps(state, indent=2) + "\n"
            temporary = options.state.with_suffix(".tmp")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(options.state)
    return state


def memory_folder() -> Path | None:
    """A folder in memory, if the system has one; None for that of all temporary files."""
    return _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None


def place_of(detail: str) -> str:
    """The innermost line of our own sources in a traceback.

    Args:
        detail: The traceback.

    Returns:
        File, line and function; empty if there is none.
    """
    ours = [line for line in detail.splitlines() if "gpt_neox_japanese" in line and "File" in line]
    innermost = ours[0] if "most recent call first" in detail and ours else "".join(ours[-1:])
    return innermost.rpartition("gpt_neox_japanese/")[2].replace('"', "")


def _in_child(
    fuzzer: Fuzzer, seed: int, numbers: range, end: float, folder: Path
) -> Iterator[dict[str, Any]]:
    """What became of each case; a child that dies is reported with the case that it was at."""
    log = folder / "log"
    readable, writable = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(readable)
        with os.fdopen(writable, "w") as reports, log.open("w") as errors:
            os.dup2(errors.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            try:
                _carry_out_many(fuzzer, seed, numbers, end, folder, reports)
            except BaseException:  # a mistake in the fuzzer
                traceback.print_exc(file=errors)
                errors.flush()
                os._exit(70)
        os._exit(0)
    os.close(writable)
    begun: dict[str, Any] | None = None
    hangs = False
    try:
        for report in _reports(readable, process, fuzzer.seconds_a_case):
            hangs = report is None
            if report is not None:
                begun = None if "attempts" in report else report
                if begun is None:
                    yield report
    except BaseException:  # this process is stopped, and the folder is to be removed
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        raise
    os.close(readable)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    tail = log.read_text(errors="replace")[-3000:]
    if status == 70:
        raise SystemExit(f"case {begun}: the fuzzer itself failed\n{tail}")
    if begun is not None:
        outcome = "hang" if hangs else signal.Signals(-status).name if status < 0 else "exit"
        yield begun | {"attempts": [("?", outcome, tail)]}


def _reports(readable: int, process: int, seconds_a_case: float) -> Iterator[dict[str, Any] | None]:
    """What a child tells; None if it told nothing for too long, and was killed for it."""
    pending, spent, before = b"", 0.0, 0.0
    while True:
        if select.select([readable], [], [], 1.0)[0]:
            data = os.read(readable, 2**16)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            yield from map(json.loads, lines)
            spent, before = 0.0, 0.0
            continue
        computed, asleep = _activity(process)
        spent += 1.0 if asleep else computed - before if before else 0.0
        before = computed
        if spent > seconds_a_case:
            os.kill(process, signal.SIGUSR1)  # write where it is
            time.sleep(1)
            os.kill(process, signal.SIGKILL)
            yield None


def _activity(process: int) -> tuple[float, bool]:
    """The processor time of all threads of a process in seconds, and whether all of them sleep."""
    ticks, states = 0, set()
    for thread in Path(f"/proc/{process}/task").iterdir():
        try:
            fields = (thread / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        states.add(fields[0])
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), "R" not in states


def _carry_out_many(
    fuzzer: Fuzzer, seed: int, numbers: range, end: float, folder: Path, reports: Any
) -> None:
    """In a child: all cases, or as many as there is time for."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + fuzzer.memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (fuzzer.memory, fuzzer.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    gc.disable()
    guard = Guard()
    for number in numbers:
        if time.monotonic() > end:
            return
        if number % _CASES_A_COLLECTION == 0:
            gc.collect()
        case = folder / "case"
        shutil.rmtree(case, ignore_errors=True)
        (case / "input").mkdir(parents=True)
        draw = random.Random(f"{seed} {number}")  # noqa: S311
        report: dict[str, Any] = {"case": number, "what": "being made"}
        try:
            report["what"] = fuzzer.make(draw, case / "input")
        except Exception as error:  # a mistake in the fuzzer, which is no reason to stop
            detail = traceback.format_exc()[-3000:]
            attempts = [("make", type(error).__name__, detail)]
        else:
            print(json.dumps(report), file=reports, flush=True)
            attempts = list(_results(fuzzer, case, guard))
        print(json.dumps(report | {"attempts": attempts}), file=reports, flush=True)


def _results(fuzzer: Fuzzer, case: Path, guard: Guard) -> Iterator[tuple[str, str, str]]:
    """Each attempt's name, outcome, and details of what may not be."""
    results = case / "results"
    results.mkdir()
    tempfile.tempdir = str(results)
    for name, attempt in fuzzer.attempts(case / "input", results).items():
        outcome, detail = "works", ""
        guard.watch(results)
        try:
            attempt()
        except NeoXJapaneseError:
            outcome = "refused"
        except BaseException as error:
            outcome = type(error).__name__
            detail = "".join(traceback.format_exception(error))[-3000:]
        escapes = guard.escapes
        guard.watch(None)
        if escapes:
            outcome, detail = "escape", "; ".join(escapes)[:3000]
        yield name, outcome, detail


def _carry_out_one(fuzzer: Fuzzer, seed: int, number: int) -> None:
    """One case in this process, for the person who looks into it."""
    case = Path(tempfile.mkdtemp(prefix=f"fuzz-case-{number}-"))
    (case / "input").mkdir()
    (case / "results").mkdir()
    print(fuzzer.make(random.Random(f"{seed} {number}"), case / "input"))  # noqa: S311
    print(case)
    for name, attempt in fuzzer.attempts(case / "input", case / "results").items():
        print(f"---- {name}")
        try:
            print("works:", attempt())
        except Exception:
            traceback.print_exc(file=sys.stdout)


def _read_state(options: argparse.Namespace, packages: list[str]) -> dict[str, Any]:
    fresh: dict[str, Any] = {
        **circumstances(packages),
        "seed": options.seed,
        "sources": _sources(),
        "cases": 0,
        "processor_seconds": 0.0,
        "outcomes": {},
        "findings": {},
        "examples": [],
        "earlier": [],
    }
    if options.state is None or not options.state.is_file():
        return fresh
    state: dict[str, Any] = json.loads(options.state.read_text(encoding="utf-8"))
    if state.get("seed") != fresh["seed"]:
        print(f"{options.state}: the seed is not what it was; beginning anew")
        return fresh
    earlier = state.setdefault("earlier", [])
    for name in ("sources", "versions"):
        if state.get(name) != fresh[name]:
            print(f"{options.state}: {name} is not what it was; going on with new cases")
            kept = ("commit", "date", "cases", "processor_seconds", "findings", "examples")
            return fresh | {"earlier": [*earlier, {name: state[name] for name in kept}]}
    return state


def _sources() -> str:
    """Of the package and this script: cases that are counted together are about the same ones."""
    package = Path(gpt_neox_japanese.__file__).parent
    scripts = Path(__file__).parent
    files = [*sorted(package.rglob("*.py")), *sorted(scripts.glob("*.py")), Path(sys.argv[0])]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
