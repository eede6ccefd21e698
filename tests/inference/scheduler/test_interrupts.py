"""Interrupts and forks at any moment: the next answer is right, or an error."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gpt_neox_japanese import TextGenerator
from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.cpu import thread_pool
from tests.forks import in_child
from tests.inference.networks import held

# Both begin alike and are longer than a chunk of a prefill; the last repeats itself, so that
# prompt lookup has something to draft.
SHARED = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 12
PROMPTS = (SHARED + "何でも薄暗い", SHARED + "しかし", "ある日の暮方の事である。", SHARED)


@pytest.fixture(params=[(1, False), (2, False), (2, True)], ids=["1", "2", "2-lookup"])
def generator(request: pytest.FixtureRequest) -> TextGenerator:
    threads, prompt_lookup = request.param
    return TextGenerator.load(threads=threads, prompt_lookup=prompt_lookup, slots=3)


def texts(generator: TextGenerator) -> list[str]:
    return [generator.generate(prompt, max_new_tokens=12, temperature=0) for prompt in PROMPTS]


def interrupted_after(seconds: float, work: Callable[[], Any]) -> bool:
    """Run something, and strike it as Ctrl-C would after some time; whether that struck."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return False


@pytest.fixture
def alarm_interrupts() -> Any:
    """SIGALRM raises KeyboardInterrupt wherever the main thread is, as SIGINT does."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(sys.platform == "win32", reason="needs an interval timer")
@pytest.mark.parametrize("count", [25, pytest.param(400, marks=pytest.mark.slow)])
def test_text_after_an_interrupt_is_what_it_was_before(
    generator: TextGenerator, alarm_interrupts: None, count: int
) -> None:
    expected = texts(generator)
    chance = random.Random(0)
    struck = 0
    while struck < count:
        prompt = chance.choice(PROMPTS)
        side_by_side = chance.randrange(1, 4)

        def work() -> None:
            generator.generate_details(
                prompt,  # noqa: B023
                num_return_sequences=side_by_side,  # noqa: B023
                max_new_tokens=60,
                seed=1,
            )

        struck += interrupted_after(chance.uniform(0.0002, 0.1), work)
        if chance.random() < 0.3:
            index = chance.randrange(len(PROMPTS))
            again = generator.generate(PROMPTS[index], max_new_tokens=12, temperature=0)
            assert again == expected[index]
    assert texts(generator) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="needs an interval timer")
def test_a_stream_that_was_interrupted_gives_all_that_follows_or_an_error(
    alarm_interrupts: None,
) -> None:
    generator = TextGenerator.load()
    given: dict[str, Any] = {"max_new_tokens": 40, "temperature": 0}
    expected = generator.generate(PROMPTS[2], **given)
    chance = random.Random(1)
    ended = 0
    for _ in range(60):
        read: list[str] = []
        stream = generator.stream_details(PROMPTS[2], **given)

        def work() -> None:
            read.extend(piece.text for piece in stream)  # noqa: B023

        if not interrupted_after(chance.uniform(0.0002, 0.03), work):
            assert "".join(read) == expected
            continue
        before = "".join(read)
        try:
            work()
        except GenerationError as error:
            assert "KeyboardInterrupt" in str(error)  # noqa: PT017
            ended += 1
        else:  # it struck the reading loop, which may have lost the piece in its hand
            assert expected.startswith(before)
            assert expected.endswith("".join(read)[len(before) :])
    assert ended > 0
    assert generator.generate(PROMPTS[2], **given) == expected


def test_a_closed_generator_says_so() -> None:
    with TextGenerator.load(threads=2) as generator, held(generator.engine.network) as hold:
        stream = generator.stream_details("猫", max_new_tokens=9)
        threading.Timer(0.05, hold.released.set).start()
        generator.close()
    with pytest.raises(GenerationError, match="closed"):
        list(stream)
    with pytest.raises(GenerationError, match="closed"):
        generator.generate("猫")


@pytest.mark.skipif(sys.platform == "win32", reason="needs an interval timer")
def test_a_signal_handler_may_write_a_text_while_another_is_written() -> None:
    given: dict[str, Any] = {"max_new_tokens": 40, "temperature": 0}
    with TextGenerator.load(threads=2) as generator:
        expected = [generator.generate(prompt, **given) for prompt in PROMPTS[1:3]]
        found: list[str] = []
        before = signal.signal(
            signal.SIGALRM, lambda *_: found.append(generator.generate(PROMPTS[1], **given))
        )
        chance = random.Random(2)
        try:
            while len(found) < 8:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0002, 0.02))
                assert generator.generate(PROMPTS[2], **given) == expected[1]
                signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert set(found) == {expected[0]}


def test_threads_that_read_one_stream_share_its_chunks() -> None:
    given: dict[str, Any] = {"max_new_tokens": 100, "temperature": 0}
    with TextGenerator.load() as generator:
        expected = generator.generate(PROMPTS[2], **given)
        stream = generator.stream_details(PROMPTS[2], **given)
        read: list[list[str]] = [[], [], []]

        def some(texts: list[str]) -> None:
            texts.extend(chunk.text for chunk in stream)

        reading = [threading.Thread(target=some, args=(texts,)) for texts in read]
        for thread in reading:
            thread.start()
        for thread in reading:
            thread.join()
        assert sum(map(len, map("".join, read))) == len(expected)
        assert sorted("".join(map("".join, read))) == sorted(expected)


def test_a_text_is_written_where_no_more_threads_can_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start
    left, asked = [0], [0]

    def start_if_any_is_left(thread: threading.Thread) -> None:
        asked[0] += 1
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    expected = TextGenerator.load().generate("猫は", max_new_tokens=30, temperature=0)
    with TextGenerator.load(threads=3) as generator:
        monkeypatch.setattr(threading.Thread, "start", start_if_any_is_left)
        with pytest.raises(GenerationError, match="can't start new thread"):
            generator.generate("猫は", max_new_tokens=5)
        now = [0.0]
        monkeypatch.setattr(thread_pool.time, "monotonic", lambda: now[0])
        for number in (1, 2):  # the loop alone; one worker of two
            now[0] += 2
            left[0], asked[0] = number, 0
            assert generator.generate("猫は", max_new_tokens=30, temperature=0) == expected
            assert asked[0] == number + 1, "not every step tries again"
        monkeypatch.undo()
        assert generator.generate("猫は", max_new_tokens=30, temperature=0) == expected


# ---- Forks ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_writes_the_same_text(generator: TextGenerator) -> None:
    expected = texts(generator)
    assert in_child(lambda: texts(generator) == expected) == 0
    assert texts(generator) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_forks_in_the_middle_of_a_text_disturb_neither_process(generator: TextGenerator) -> None:
    expected = texts(generator)
    long: dict[str, Any] = {"max_new_tokens": 200, "temperature": 0}
    whole = generator.generate(PROMPTS[2], **long)

    def child() -> bool:
        try:
            next(stream)
        except GenerationError as error:
            return "process" in str(error) and texts(generator) == expected
        return False

    for number in range(5):
        stream = generator.stream_details(PROMPTS[2], **long)
        read = [next(stream).text for _ in range(number * 3)]
        assert in_child(child) == 0
        assert "".join([*read, *(piece.text for piece in stream)]) == whole


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_children_of_a_server_that_forks_first_all_write() -> None:
    generator = TextGenerator.load(threads=2)
    given: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0}
    statuses: list[int] = []
    expected = TextGenerator.load(threads=2).generate("猫は", **given)

    def fork() -> None:
        statuses.append(in_child(lambda: generator.generate("猫は", **given) == expected))

    forking = [threading.Thread(target=fork) for _ in range(4)]
    for thread in forking:
        thread.start()
    for thread in forking:
        thread.join()
    assert statuses == [0] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_stream_that_another_thread_reads_is_an_error_in_the_child() -> None:
    with TextGenerator.load() as generator:
        stream = generator.stream_details(PROMPTS[2], max_new_tokens=400, min_new_tokens=400)
        reading = threading.Thread(target=list, args=(stream,))
        reading.start()

        def child() -> bool:
            try:
                next(stream)
            except GenerationError:
                return len(generator.generate("猫は", max_new_tokens=3)) >= 0
            return False

        assert [in_child(child) for _ in range(5)] == [0] * 5
        reading.join()


# ---- The end of a program ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled() -> None:
    """Other processes find what the texts of these programs need, and have nothing to say of it."""
    TextGenerator.load().generate("猫", max_new_tokens=2)
    TextGenerator.load(threads=2).generate("猫", max_new_tokens=2, temperature=0)


@pytest.mark.parametrize(
    "program",
    [
        "next(g.stream('猫', max_new_tokens=400))",
        "s = g.stream('猫', max_new_tokens=400); next(s)",
        "s = g.stream('猫', max_new_tokens=400); next(s); raise SystemExit(0)",
        "import threading; threading.Thread(target=g.generate, args=('猫',)).start()",
        "import threading; threading.Thread(target=g.generate, args=('猫',), daemon=True).start()",
    ],
)
def test_a_program_ends_quietly_in_the_middle_of_a_text(program: str, compiled: None) -> None:
    code = f"from gpt_neox_japanese import TextGenerator; g = TextGenerator.load(); {program}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


_DAEMON = """
import atexit, threading, time
atexit.register(time.sleep, 0.5)  # after the engines were closed
from gpt_neox_japanese import TextGenerator
g = TextGenerator.load()
def write():
    while True:
        g.generate("猫", max_new_tokens=400, min_new_tokens=400)
threading.Thread(target=write, daemon=True).start()
next(g.stream("猫", max_new_tokens=400))
"""


def test_a_daemon_thread_has_no_error_because_its_program_ends(compiled: None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _DAEMON], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


_JOINED = """
import atexit, threading
atexit.register(lambda: thread.join())  # after the engines were closed
from gpt_neox_japanese import TextGenerator
g = TextGenerator.load()
thread = threading.Thread(target=g.generate, args=("猫",), daemon=True, kwargs={
    "max_new_tokens": 400, "min_new_tokens": 400})
thread.start()
next(g.stream("猫", max_new_tokens=400))
"""


def test_a_daemon_thread_that_somebody_waits_for_ends(compiled: None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _JOINED], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "the engine is closed" in done.stderr


_AFTER_MAIN = """
import threading, time
from gpt_neox_japanese import TextGenerator
g = TextGenerator.load(threads=2)
def refuse(thread):  # as Python does from 3.12 on
    raise RuntimeError("can't create new thread at interpreter shutdown")
def write():
    while threading.main_thread().is_alive():
        time.sleep(0.01)
    threading.Thread.start = refuse
    print(g.generate("猫は", max_new_tokens=30, temperature=0))
threading.Thread(target=write).start()
"""


def test_a_thread_that_outlives_the_main_one_gets_its_text(compiled: None) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", _AFTER_MAIN], capture_output=True, timeout=120
    )
    expected = TextGenerator.load().generate("猫は", max_new_tokens=30, temperature=0)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, expected + "\n", b"")


_AT_EXIT = """
import atexit, threading
from gpt_neox_japanese import TextGenerator
from gpt_neox_japanese.errors import GenerationError
g = TextGenerator.load()
def refuse(thread):  # as Python does from 3.12 on
    raise RuntimeError("can't create new thread at interpreter shutdown")
def write():
    threading.Thread.start = refuse
    try:
        g.generate("猫は", max_new_tokens=30)
    except GenerationError as error:
        print(error)
atexit.register(write)
"""


def test_the_loop_never_runs_where_signal_handlers_do(compiled: None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AT_EXIT], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("the engine cannot run")
