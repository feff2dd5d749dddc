"""The form in a real page: JupyterLab on this machine, Chromium without a window, real clicks."""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import numpy as np
import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from t2i_course.user_study import make_study, read_answers

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run",
         "disable-background-networking", "window-size=1200,1100")  # fmt: skip
SECONDS = 60  # until something that the page should show counts as missing
CAPTIONS = ["a large <red> circle & nothing else", "two small blue stars"]
SOURCES = ("hidden-baseline", "hidden-real")
# The cell loads the study, as a rater's notebook does: the names are not in the page's own text
CELL = """
import numpy as np
from t2i_course.user_study import RatingForm, make_study

with np.load("study.npz") as file:
    captions = file["captions"].tolist()
    pictures = {name: file[name] for name in file if name != "captions"}
study = make_study(captions, pictures, seed=3)
RatingForm(study, "answers.jsonl")
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Chromium with a new profile, driven through the chromedriver found here, never a download."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    program, driver = shutil.which("chromedriver"), None
    for browser in filter(None, map(shutil.which, BROWSERS)) if program else ():
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in (*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
            options.add_argument(f"--{flag}")
        with contextlib.suppress(WebDriverException):  # of another version than the driver
            driver = webdriver.Chrome(options, webdriver.ChromeService(executable_path=program))
            break
    if driver is None:
        pytest.skip("needs Chromium or Chrome, and chromedriver: apt-get install chromium-driver")
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab of its own: (address, token, folder of its notebooks)."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("notebooks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, address = secrets.token_hex(16), f"http://127.0.0.1:{port}"
    # No question about news, and no look for updates, which would need the network
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR",
             "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")  # fmt: skip
    environment = os.environ | {name: str(home / name) for name in names}
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(home / "settings")
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"),
        "--LabApp.extension_manager=readonly",
    ]
    log = home / "lab.log"
    with open(log, "wb") as file:
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                call(address, token, "GET", "/api/status")
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail("JupyterLab did not start:\n" + log.read_text(errors="replace"))
                time.sleep(0.2)
        yield address, token, folder
    finally:
        server.terminate()
        server.wait(timeout=20)


def call(address: str, token: str, method: str, path: str):
    """Ask the server itself, past any proxy."""
    request = urllib.request.Request(
        address + path, method=method, headers={"Authorization": f"token {token}"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=SECONDS) as response:
        return json.loads(response.read() or "null")


class Page:
    """What a rater does on the page."""

    def __init__(self, driver, lab):
        self.driver, (self.address, self.token, folder) = driver, lab
        pictures = np.random.default_rng(0).integers(0, 256, (2, 2, 3, 64, 64), dtype=np.uint8)
        self.pictures = dict(zip(SOURCES, pictures, strict=True))
        np.savez(folder / "study.npz", captions=CAPTIONS, **self.pictures)
        self.study = make_study(CAPTIONS, self.pictures, seed=3)
        cell = nbformat.v4.new_code_cell(CELL.strip())
        kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel})
        nbformat.write(notebook, folder / "study.ipynb")
        self.answers = folder / "answers.jsonl"
        self.open()

    def open(self):
        self.driver.get(f"{self.address}/lab/tree/study.ipynb?token={self.token}&reset")
        idle = ".jp-Notebook-ExecutionIndicator[data-status=idle]"
        self.wait(lambda d: d.find_elements(By.CSS_SELECTOR, idle))
        self.wait(self.ran)

    def ran(self, driver):
        """Run the cell; false while the page is not connected yet, and the key is lost."""
        if not driver.find_elements(By.CSS_SELECTOR, ".jp-OutputArea input[type=text]"):
            with contextlib.suppress(WebDriverException):  # the editor is not drawn yet
                driver.find_element(By.CSS_SELECTOR, ".jp-CodeCell .cm-content").click()
                keys = ActionChains(driver).key_down(Keys.SHIFT).send_keys(Keys.ENTER)
                keys.key_up(Keys.SHIFT).perform()
            time.sleep(5)
            return False
        return True

    def wait(self, condition):
        return WebDriverWait(self.driver, SECONDS, poll_frequency=0.1).until(condition)

    def text(self, name):
        """The form's text of that class, once it is there."""
        return self.wait(lambda d: self.texts(name))[0]

    def texts(self, name):
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText.trim())"
        return [text for text in self.driver.execute_script(script, f".{name}") if text]

    def click(self, label, within=""):
        """Click the button of that label, once it can be clicked."""
        path = f"//div[contains(@class, '{within}')]//button[normalize-space()='{label}']"

        def clickable(driver):
            buttons = driver.find_elements(By.XPATH, path if within else path[path.index("//b") :])
            return [b for b in buttons if b.is_displayed() and b.is_enabled()]

        (button,) = self.wait(clickable)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def begin(self, name):
        self.rater = name.strip().casefold()
        self.wait(lambda d: d.find_elements(By.CSS_SELECTOR, ".jp-OutputArea input[type=text]"))
        self.driver.find_element(By.CSS_SELECTOR, ".jp-OutputArea input").send_keys(name)
        self.click("Begin")

    def shown(self):
        """The picture, as the browser drew it: [H, W, 3]."""
        script = """
            const image = document.querySelector('img.study-picture');
            if (!image || !image.complete || !image.naturalWidth) return null;
            const canvas = document.createElement('canvas');
            canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0);
            const size = image.getBoundingClientRect();
            const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
            return [size.width, size.height, canvas.width, canvas.height, Array.from(data)];
        """
        width, height, columns, rows, data = self.wait(lambda d: d.execute_script(script))
        assert (width, height) == (columns, rows), "the page stretches the picture"
        return np.array(data, dtype=np.uint8).reshape(rows, columns, 4)[..., :3]

    def check_trial(self, trial, progress):
        """Progress, caption and pictures are those of the trial, and nothing names a source."""
        rater = self.rater
        self.wait(lambda d: self.text("study-progress") == f"{progress}, rated by {rater}")
        assert self.text("study-caption") == CAPTIONS[trial.item]
        expected = np.moveaxis(self.pictures[trial.sources[0]][trial.item], 0, -1)
        expected = expected.repeat(4, axis=0).repeat(4, axis=1)
        self.wait(lambda d: np.array_equal(self.shown(), expected))
        page = self.driver.page_source
        assert "study-picture" in page and not any(name in page for name in SOURCES)


@pytest.mark.slow
def test_ratings_clicked_in_jupyterlab_are_in_the_file_also_when_the_kernel_dies(driver, lab):
    page = Page(driver, lab)
    page.begin("Ada")
    order = page.study.order("ada")
    for done, trial in enumerate(order[:2]):
        page.check_trial(trial, f"{done + 1} of 4")
        (button,) = driver.find_elements(By.XPATH, "//button[normalize-space()='Next']")
        assert not button.is_enabled()
        page.click("4 good", within="study-quality")
        page.click("2 a little", within="study-fit")
        page.click("Next")
    page.check_trial(order[2], "3 of 4")

    # The kernel dies without a word, as when the machine's memory is full
    (kernel,) = call(*lab[:2], "GET", "/api/kernels")
    call(*lab[:2], "POST", f"/api/kernels/{kernel['id']}/restart")
    assert [a.trial for a in read_answers(page.answers)] == [t.number for t in order[:2]]
    page.open()
    page.begin(" ada ")
    for done, trial in enumerate(order[2:], start=2):
        page.check_trial(trial, f"{done + 1} of 4")
        page.click("5 excellent", within="study-quality")
        page.click("5 fully", within="study-fit")
        page.click("Next")
    assert page.text("study-end").startswith("Thank you. All 4 are answered")
    assert any(text.startswith("hidden-real: you gave") for text in page.texts("study-end"))

    saved = read_answers(page.answers)
    assert [(a.trial, a.sources) for a in saved] == [(t.number, t.sources) for t in order]
    assert [a.scores["quality"] for a in saved] == [4, 4, 5, 5]
    assert [a.scores["fit"] for a in saved] == [2, 2, 5, 5]
    assert {a.rater for a in saved} == {"ada"}
