"""The picture of a page in the README: ``python -m benchmarks.pages.screenshot RUN`` writes ``figures/report.png``.

The picture in the repository is of the run of ``make demo``. It needs chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

PICTURE = Path(__file__).resolve().parents[2] / "figures" / "report.png"
#: Pixels of the page that are shown.
WIDTH, HEIGHT = 1000, 1330


def photograph(page: Path, picture: Path) -> None:
    """Write the top of a page, its charts drawn, as PNG."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in programs.items() if path is None]:
        raise SystemExit(f"{' and '.join(missing)} not installed (apt-get install chromium chromium-driver).")
    options.binary_location = str(programs["chromium"])
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs["chromedriver"]))
    try:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(page.resolve().as_uri())
        ready = "return document.documentElement.dataset.ready === 'yes'"
        WebDriverWait(driver, 30).until(lambda _: driver.execute_script(ready))
        driver.save_screenshot(str(picture))
    finally:
        driver.quit()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages.screenshot", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run with report.html")
    photograph(parser.parse_args().run / "report.html", PICTURE)


if __name__ == "__main__":
    main()
