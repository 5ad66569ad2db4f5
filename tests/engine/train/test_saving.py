"""What is written beside training."""

from __future__ import annotations

import threading

import pytest

from medray.engine.train.saving import Saver


def test_training_goes_on_while_two_states_are_written_and_waits_with_a_third() -> None:
    written: list[int] = []
    gate = threading.Event()

    def slow() -> None:
        assert gate.wait(10)
        written.append(1)

    saver = Saver()
    saver.write(slow)  # comes back at once
    assert written == []
    saver.write(lambda: written.append(2))  # the best weights, and then the checkpoint
    third = threading.Thread(target=lambda: saver.write(lambda: written.append(3)))
    third.start()
    third.join(0.2)
    assert third.is_alive()
    gate.set()
    third.join(10)
    saver.wait()
    assert written == [1, 2, 3]


def test_what_the_writing_raised_is_not_lost() -> None:
    def full() -> None:
        raise OSError("no space left on device")

    saver = Saver()
    saver.write(full)
    with pytest.raises(OSError, match="no space left"):
        saver.wait()
    saver.wait()
