"""What is written beside training."""

from __future__ import annotations

import threading

import pytest

from medray.engine.saving import Saver


def test_training_goes_on_while_a_state_is_written_and_waits_for_the_one_before() -> None:
    written: list[int] = []
    gate = threading.Event()

    def slow() -> None:
        assert gate.wait(10)
        written.append(1)

    saver = Saver()
    saver.write(slow)  # comes back at once
    assert written == []
    second = threading.Thread(target=lambda: saver.write(lambda: written.append(2)))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    gate.set()
    second.join(10)
    saver.wait()
    assert written == [1, 2]


def test_what_the_writing_raised_is_not_lost() -> None:
    def full() -> None:
        raise OSError("no space left on device")

    saver = Saver()
    saver.write(full)
    with pytest.raises(OSError, match="no space left"):
        saver.wait()
    saver.wait()
