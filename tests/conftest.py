"""Fixtures shared by both packages' tests."""

import importlib.util
import json
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter
from rich.cells import cell_len

#: What differs from run to run on a screen, and what stands for it; the width of the text stays.
CHANGING = (
    (r"\x1b\[[0-9;?]*[A-Za-z]", ""),
    (r"\d{8}T\d{6}Z", "20260101T000000Z"),
    (r"(?<=-)[0-9a-f]{8}(?=[/\s,.]|$)", "00000000"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d", "2026-01-01 00:00"),
    (r"20\d\d-\d\d-\d\d(?=\s)", "2026-01-01"),
)


#: Files that take longest; they begin, so that no process waits for the last of them.
LONGEST = ("test_documents.py", "test_walls.py", "test_hostile.py", "test_bad_day.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-screens", action="store_true", help="Write the screens of the commands anew.")


@pytest.fixture(autouse=True)
def no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the width of the terminal to the test, not to what runs the tests."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Return the folder of real data and weights beside the project."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the real data beside the project is not here")
    return folder


def assert_print_ready(figure: Any, width: int) -> None:
    """Assert what holds of every figure for print: width, 8 pt, labels apart, marks in the legend, axes that begin."""
    from spectral_probe.figure_style import FONT_SIZE, line_labels

    assert figure.get_figwidth() * 25.4 == pytest.approx(width)
    assert figure.get_figheight() * 25.4 < 260, "higher than a page"
    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    hidden = {id(label) for axis in axes for label in (*axis.get_majorticklabels(), *axis.get_minorticklabels())}
    hidden -= {id(label) for axis in axes for label in shown_labels(axis)}
    texts = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible() and id(t) not in hidden]
    assert {text.get_fontsize() for text in texts} == {FONT_SIZE}
    page = figure.bbox.padded(1.0)
    for text in texts:
        box = Text.get_window_extent(text)
        assert page.contains(box.x0, box.y0), text.get_text()
        assert page.contains(box.x1, box.y1), text.get_text()
    for ax in figure.axes:
        for labels in (line_labels(ax), shown_labels(ax.xaxis), shown_labels(ax.yaxis)):
            boxes = [Text.get_window_extent(text) for text in labels]
            assert not any(a.overlaps(b) for a, b in combinations(boxes, 2)), [t.get_text() for t in labels]
        low, high = sorted(ax.get_ylim())
        is_measured = (
            not ax.images and len(ax.get_yticks()) and not isinstance(ax.yaxis.get_major_formatter(), FixedFormatter)
        )
        assert not is_measured or low <= 0 <= high or "starts at" in ax.get_ylabel(), ax.get_title("left")
    titles = {ax.get_title("left") for ax in figure.axes} - {""}
    boxes = [Text.get_window_extent(text) for text in texts if text.get_text() in titles]
    assert len(boxes) >= len(titles)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2)), titles
    for legend in figure.legends:
        assert all(has_mark(handle) for handle in legend.legend_handles)


def shown_labels(axis: Any) -> list[Any]:
    """Return the labels of the ticks that are shown within the limits of an axis."""
    low, high = sorted(axis.get_view_interval())
    pairs = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=False)
    return [label for tick, label in pairs if label.get_text() and label.get_visible() and low <= tick <= high]


def has_mark(handle: Any) -> bool:
    """Return whether a handle of a legend shows a line, a mark or an area."""
    if not hasattr(handle, "get_linestyle") or not hasattr(handle, "get_marker"):
        return bool(handle.get_alpha() != 0 and handle.get_visible())
    return handle.get_linestyle() not in ("None", "none", "") or handle.get_marker() not in ("None", "none", "", None)


class Browser:
    """Chromium without a window: opens a page of the disk, and keeps what it asked the network for."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, *, width: int = 1400, scheme: str = "light", scripts: bool = True) -> None:
        """Open a page at a width, with a colour scheme, with or without JavaScript; wait until its charts are drawn."""
        self.logs()
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        self.driver.get(page.as_uri())
        if scripts:
            self.wait("document.documentElement.dataset.ready === 'yes'")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript and return its result."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true, for at most ten seconds."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 10, 0.02).until(lambda _: self.run(f"return {condition}"), condition)

    def all(self, selector: str) -> list[Any]:
        """Return the elements of a selector."""
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """Return the text of every element of a selector, shown or not."""
        return self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent.trim())", selector)

    def choose(self, signal: str, value: Any, panel: str = "body") -> None:
        """Set a control of a panel, as a person does, and wait until the charts are drawn again."""
        selector = f"{panel} [data-signal={signal}]"
        control = self.all(selector)[0]
        if control.tag_name == "select":
            self.run("arguments[0].value = arguments[1]", control, value)
            self.run("arguments[0].dispatchEvent(new Event('change', {bubbles: true}))", control)
        elif control.tag_name == "fieldset":
            for box in control.find_elements("css selector", "input"):
                if box.is_selected() != (box.get_attribute("value") in value):
                    box.click()
        elif control.is_selected() != value:
            control.click()
        self.wait("document.documentElement.dataset.drawing === '0'")

    def violations(self) -> list[str]:
        """Return what axe-core finds serious or critical: rule, help and the elements; skips where it is missing."""
        spec = importlib.util.find_spec("axe_playwright_python")
        if spec is None or spec.origin is None:
            pytest.skip("axe-core is not installed (make axe)")
        self.run((Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8"))
        script = (
            "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(r => done(r.violations))"
        )
        reported = self.driver.execute_async_script(script)
        serious = [rule for rule in reported if rule["impact"] in ("serious", "critical")]
        return [f"{rule['id']}: {rule['help']}: {[node['html'][:200] for node in rule['nodes']]}" for rule in serious]

    def logs(self) -> tuple[list[str], list[str]]:
        """Return the addresses that the page asked for, and the errors on its console, since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        errors = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return asked, errors


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium with its driver, one per module; the test is skipped where one of them, or Altair, is missing."""
    for package in ("selenium", "altair", "vl_convert"):
        pytest.importorskip(package, reason=f"the extra report or the package {package} is not installed")
    from selenium import webdriver

    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs["chromedriver"]))
    yield Browser(driver)
    driver.quit()


@pytest.fixture
def screen(request: pytest.FixtureRequest) -> Callable[[str, int, str], None]:
    """Return a function that compares what a command printed in a width with the stored screen of a name.

    Screens lie in ``screens/`` beside the test; ``pytest --write-screens`` writes them anew.
    """
    folder = request.path.parent / "screens"

    def check(name: str, width: int, text: str) -> None:
        for pattern, stands_for in CHANGING:
            text = re.sub(pattern, stands_for, text)
        lines = [line.rstrip() for line in text.strip("\n").splitlines()]
        # A path is not broken, so that it can be copied: alone, or behind a label, it may be longer.
        assert [line for line in lines if cell_len(line) > width and not re.fullmatch(r"(\w+: )?\S+", line)] == []
        path, content = folder / f"{name}-{width}.txt", "\n".join(lines) + "\n"
        if request.config.getoption("--write-screens"):
            folder.mkdir(exist_ok=True)
            path.write_text(content, encoding="utf-8")
        assert path.is_file(), f"{path} is missing; write it with pytest --write-screens, and look at it"
        assert content == path.read_text(encoding="utf-8")

    return check
