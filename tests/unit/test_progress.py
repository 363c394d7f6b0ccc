"""The display of a run: cells, trials and the time that is left, on a terminal and in the log."""

import logging
import re
from io import StringIO

import pytest
from rich.console import Console

from sahub import progress
from sahub.progress import Display


def terminal() -> Console:
    return Console(file=StringIO(), force_terminal=True, width=160, color_system=None)


def lines(display: Display) -> list[str]:
    """What the display shows now."""
    with display.console.capture() as shown:
        display.console.print(display._bars.get_renderable())
    return shown.get().splitlines()


def test_cells_trials_and_time_left_of_each_phase(monkeypatch):
    now = [0.0]
    display = Display({"search": 3, "validate": 3}, console=terminal())
    display._bars.get_time = lambda: now[0]
    with display.steps("search", "first", "trials") as step:
        step.total = 4
        for _ in range(4):
            now[0] += 10.0
            step()
    with display.steps("search", "second", "trials") as step:
        step.total = 8
        for _ in range(4):
            now[0] += 5.0
            step()
        search, validate = lines(display)
    assert "search" in search
    assert "1/3 cells" in search
    assert "second 4/8 trials" in search
    assert "0:01:00" in search  # elapsed
    assert re.search(r"left +0:01:00", search)  # one cell and a half of three in a minute
    assert "0/3 cells" in validate
    assert re.search(r"left +-:--:--", validate)


def test_what_fails_or_never_comes_is_no_part_of_the_time_left():
    display = Display({"search": 2, "validate": 2}, console=terminal())
    with pytest.raises(ValueError, match="broken"), display.steps("search", "first"):
        raise ValueError("broken")
    display.skip("validate", 1)
    with display.steps("validate", "both", "contexts") as step:
        step.total = 3
        step()
    search, validate = lines(display)
    assert "1/2 cells" in search
    assert "1/1 cells" in validate


def test_without_a_terminal_the_log_has_a_line_now_and_then(monkeypatch, caplog):
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    out = Console(file=StringIO())
    display = Display({"search": 2}, console=out)
    with caplog.at_level(logging.INFO), display, display.steps("search", "quest", "trials") as step:
        step.total = 2
        step()
    assert out.file.getvalue() == ""
    assert any(re.match(r"search: 0/2 cells done, now quest 1/2 trials", one) for one in caplog.messages)


def test_warnings_stand_above_the_lines(monkeypatch):
    screen = StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    handler = logging.StreamHandler(screen)
    logging.getLogger().addHandler(handler)
    try:
        with Display({"search": 1}, console=Console(file=screen, force_terminal=True, width=80, color_system=None)):
            assert handler.stream is not screen
            logging.getLogger("sahub").warning("look")
        assert handler.stream is screen
    finally:
        logging.getLogger().removeHandler(handler)
    assert any(line.endswith("look") for line in screen.getvalue().splitlines())
