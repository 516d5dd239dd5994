"""The site as a reader has it: built, served on this machine, and opened in a browser."""

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import httpx
import pytest

from chromium import Tab, tab
from pages import ROOT, english
from servers import program

pytestmark = [pytest.mark.once, pytest.mark.e2e]

DESKTOP, PHONE = 1280, 390
LANGUAGES = {"en": "", "ru": "ru/"}
PATHS = ["" if page.stem == "index" else f"{page.stem}/" for page in english()]


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, *_: object) -> None: ...


@contextmanager
def served(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the site, which is built strictly, without a warning, and once for all workers of a run."""
    program("chromium")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "site"
    with (shared / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
            environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
            built = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
            assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    with served(folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with tab(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_opens_without_fault_at_either_width_and_switches_to_its_twin(
    browser: Tab, site: str, language: str, path: str
) -> None:
    browser.resize(DESKTOP)
    browser.open(site + LANGUAGES[language] + path)
    assert browser.evaluate("document.documentElement.lang") == language
    for width in (DESKTOP, PHONE):
        browser.resize(width)
        assert browser.evaluate("innerWidth") == width
        wide = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"
        assert browser.evaluate(wide) <= 0, f"{width} pixels wide"
    switches = "Object.fromEntries([...document.querySelectorAll('.md-select__link')].map(a => [a.hreflang, a.href]))"
    assert browser.evaluate(switches) == {name: site + prefix + path for name, prefix in LANGUAGES.items()}
    assert browser.problems() == []
    assert {urlsplit(address).netloc for address in browser.requests()} == {urlsplit(site).netloc}


@pytest.mark.parametrize(("language", "word"), [("en", "cancelled"), ("ru", "отмена"), ("ru", "cancelled")])
def test_the_search_finds_a_word(browser: Tab, site: str, language: str, word: str) -> None:
    browser.resize(DESKTOP)
    browser.open(site + LANGUAGES[language])
    browser.evaluate("document.querySelector('[data-md-component=search-query]').focus()")
    browser.type(word)
    found = browser.wait_until("[...document.querySelectorAll('.md-search-result__link')].map(a => a.href).join(' ')")
    in_russian = [address.startswith(f"{site}ru/") for address in found.split()]
    assert in_russian == [language == "ru"] * len(in_russian)
    assert browser.problems() == []
    assert {urlsplit(address).netloc for address in browser.requests()} == {urlsplit(site).netloc}


def test_a_click_on_the_other_language_lands_on_the_same_page(browser: Tab, site: str) -> None:
    browser.resize(DESKTOP)
    browser.open(site + "tracking/")
    heading = browser.evaluate("document.querySelector('h1').id")
    browser.events.clear()
    browser.evaluate("document.querySelector('.md-select__link[hreflang=ru]').click()")
    browser.wait_for_load()
    assert browser.evaluate("location.href") == site + "ru/tracking/"
    assert browser.evaluate("document.querySelector('h1').id") == heading


def test_the_index_for_models_is_at_the_root_and_its_links_lead_somewhere(site: str) -> None:
    index = httpx.get(f"{site}llms.txt", trust_env=False).raise_for_status().text
    for target in re.findall(r"\]\(([^)]+)\)", index):
        assert httpx.get(site + target, trust_env=False).text.startswith("# ")
