"""The pages in headless Chromium, from file:// with the network off."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run", "--autoplay-policy=no-user-gesture-required"]  # fmt: skip
PAGES = ("index.html", "audio.html", "published.html", "tasks/reconstruction-mini-en.html",
         "tokenizers/kanade-25hz.html", "tokenizers/phone-labels.html")  # fmt: skip


TASK_PAGES = ("index.html", "audio.html", "ablations/ssl-loss-mini.html", "tokenizers/kanade-25hz.html",
              *(f"tasks/{task}-mini-en.html" for task in ("vc", "speaker", "abx", "pnmi")))  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


SHOWN = "[...document.querySelectorAll('tr[data-name]')].filter(r => r.offsetParent)"


class Visit:
    """One page in a context of its own, offline, with everything that went wrong in it."""

    def __init__(self, browser: Any, site: Path, path: str, **options: Any) -> None:
        self.context = browser.new_context(**({"viewport": {"width": 1400, "height": 900}} | options))
        self.context.set_offline(True)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.problems.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.problems.append(str(e)))
        self.page.on("requestfailed", lambda r: self.problems.append(f"failed: {r.url}"))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto((site / path).as_uri())

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def until(page: Any, condition: str, *, seconds: float = 20) -> None:
    """Poll from here: the pages' own policy forbids the evaluation of strings inside them."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never true: {condition}"
        page.wait_for_timeout(50)


def column(page: Any, index: int, body: str = "ranked") -> list[str]:
    script = f"[...document.querySelectorAll('tbody.{body} tr[data-name]')].map(r => r.cells[{index}]?.innerText ?? '')"
    return [str(x) for x in page.evaluate(script)]


def heads(page: Any) -> list[str]:
    return [
        str(x) for x in page.evaluate("[...document.querySelectorAll('table.results thead th')].map(h => h.innerText)")
    ]


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_overflow_no_errors_no_requests(browser: Any, site: Path, width: int, scheme: str) -> None:
    for path in PAGES:
        viewport = {"width": width, "height": 800}
        with Visit(browser, site, path, viewport=viewport, color_scheme=scheme) as visit:
            size = visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert size[0] <= size[1], (path, size)
            assert visit.problems == [], path
            assert all(url.startswith(("file:", "data:")) for url in visit.requests), path
            paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", paper)[:3])) > 380) == (scheme == "light"), path


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1400, "dark")])
def test_pages_of_all_tasks_fit_without_errors(browser: Any, task_site: Path, width: int, scheme: str) -> None:
    """Drawings and their text stay inside the page, and text inside its drawing."""
    shown = "[...document.querySelectorAll('figure svg[role=img]')].filter(s => s.checkVisibility())"
    outside = f"""() => {shown}.flatMap(s => {{ const box = s.getBoundingClientRect();
        return [...s.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()])
          .filter(([, r]) => r.left < box.left - 3 || r.right > box.right + 3 || r.bottom > box.bottom + 3)
          .map(([words]) => s.querySelector('title').textContent + ': ' + words); }})"""
    for path in TASK_PAGES:
        viewport = {"width": width, "height": 800}
        with Visit(browser, task_site, path, viewport=viewport, color_scheme=scheme) as visit:
            size = visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert size[0] <= size[1], (path, size)
            assert visit.problems == [], path
            assert visit.page.evaluate(outside) == [], path
            assert visit.page.evaluate(f"{shown}.length") > 0 or path == "audio.html", path


def test_sorting(browser: Any, site: Path) -> None:
    with Visit(browser, site, "index.html") as visit:
        page = visit.page
        names = heads(page)
        wer = next(i for i, name in enumerate(names) if name.startswith("WER"))
        similarity = next(i for i, name in enumerate(names) if name.startswith("Speaker"))
        sort = lambda i: page.locator("table.results thead th .sort").nth(i).click()  # noqa: E731
        aria = lambda i: page.locator("table.results thead th").nth(i).get_attribute("aria-sort")  # noqa: E731

        def numbers(i: int) -> list[float]:
            return [float(x.split("±")[0].split()[0]) for x in column(page, i) if x and "n/a" not in x]

        sort(similarity)
        assert aria(similarity) == "descending", "higher is better, so the best comes first"
        assert numbers(similarity) == sorted(numbers(similarity), reverse=True)
        sort(wer)
        assert aria(wer) == "ascending"
        assert aria(similarity) == "none"
        assert numbers(wer) == sorted(numbers(wer))
        sort(wer)
        assert aria(wer) == "descending"
        assert numbers(wer) == sorted(numbers(wer), reverse=True)
        tail = column(page, 0)[-2:]
        assert set(tail) == {"hubert-units", "phone-labels"}, "those without a number stay last"
        sort(0)
        assert column(page, 0) == sorted(column(page, 0))
        assert column(page, 0, "anchors") == ["identity", "codec2-1200"], "anchors stay apart"
        page.locator("table.results thead th .sort").nth(wer).focus()
        page.keyboard.press("Enter")
        assert aria(wer) == "ascending"
        assert visit.problems == []


def test_filters(browser: Any, site: Path) -> None:
    with Visit(browser, site, "index.html") as visit:
        page = visit.page
        shown = lambda: {  # noqa: E731
            str(x) for x in page.evaluate(SHOWN + ".map(r => r.cells[0].innerText)")
        }
        everything = shown()
        assert len(everything) == 9
        page.fill("#f-text", "K-MEANS")
        assert shown() == {"kmeans-logmel-500", "kmeans-whisper-tiny-500", "hubert-units"}
        assert page.inner_text("#f-count") == "3 of 9 tokenizers"
        page.click("form.filters button[type=reset]")
        until(page, "document.getElementById('f-count').textContent.startsWith('9')")
        assert shown() == everything
        page.select_option("#f-kind", "continuous")
        assert shown() == {"losatok-25hz"}
        page.select_option("#f-kind", "")
        page.select_option("#f-hz", "25")
        assert shown() == {"kanade-25hz", "mimi-8", "losatok-25hz"}
        page.select_option("#f-hz", "")
        page.check("#f-anchors")
        assert shown() == everything - {"identity", "codec2-1200"}
        page.select_option("#f-bps", "600")
        rates = page.evaluate(SHOWN + ".map(r => Number(r.dataset.bps))")
        assert rates
        assert all(0 < rate <= 600 for rate in rates)
        assert visit.problems == []


def test_the_drawer_tells_the_origin(browser: Any, site: Path) -> None:
    with Visit(browser, site, "index.html") as visit:
        page = visit.page
        page.locator("tr[data-name^='kanade-25hz'] a[data-cell$='wer-whisper-tiny.en']").click()
        text = page.inner_text("#drawer")
        for piece in (
            "kanade-25hz: WER [whisper-tiny.en]", "95 % interval", "cluster bootstrap over 8 speakers",
            "64 items in 8 clusters",
            "Share of words that the recogniser gets wrong", "ab" * 32, "5e" * 32, "0123456789abcdef", "clean",
            "ef" * 32,
            "tokbench run --tokenizer kanade-25hz --task reconstruction --data mini-en", "rows of 'items'",
        ):  # fmt: skip
            assert piece in text, piece
        assert (site / str(page.locator("#drawer a[href^='rows/']").first.get_attribute("href"))).is_file()
        page.keyboard.press("Escape")
        assert not page.is_visible("#drawer")
        page.locator("tr[data-name^='losatok-25hz'] a[data-cell$='bps-effective']").click()
        assert "n/a: continuous latents have no finite rate" in page.inner_text("#drawer")
        page.click("#drawer .close")
        assert not page.is_visible("#drawer")
        page.locator("tr[data-name^='kanade-25hz'] a[data-cell$='f0-corr-praat-ac']").click()
        assert "1 item (fewer than 3 frames are voiced in both: 1)" in page.inner_text("#drawer")
        assert visit.problems == []


def test_audio_plays_and_switching_keeps_the_position(browser: Any, site: Path) -> None:
    with Visit(browser, site, "audio.html") as visit:
        page = visit.page
        state = (
            "i => { const a = document.querySelectorAll('audio')[i]; return [a.paused, a.currentTime, a.readyState]; }"
        )
        assert page.evaluate("[...document.querySelectorAll('audio')].every(a => a.readyState === 0)"), (
            "nothing preloaded"
        )
        page.locator(".player button").nth(0).click()
        until(page, "document.querySelectorAll('audio')[0].currentTime > 0.3")
        assert page.locator(".player button").nth(0).get_attribute("aria-label").startswith("Pause original")
        page.keyboard.press("ArrowDown")
        # The position is kept by seeking, and a clip that has just sought has no data yet.
        until(page, "(a => a.readyState >= 2 && a.currentTime > 0.3)(document.querySelectorAll('audio')[1])")
        assert page.evaluate(state, 0)[0], "one at a time"
        position = page.evaluate(state, 1)[1]
        page.keyboard.press("a")
        until(page, "!document.querySelectorAll('audio')[0].paused")
        assert page.evaluate(state, 0)[1] >= position - 0.15 or page.evaluate(state, 0)[0]
        page.keyboard.press("b")
        until(page, "document.querySelectorAll('.clip')[1].classList.contains('on')")
        assert visit.problems == []


def test_the_theme_button(browser: Any, site: Path) -> None:
    with Visit(browser, site, "index.html", color_scheme="light") as visit:
        page = visit.page
        paper = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")  # noqa: E731
        first = paper()
        page.click("#theme")
        assert (page.inner_text("#theme"), paper()) == ("Light", first)
        page.click("#theme")
        assert page.inner_text("#theme") == "Dark"
        assert paper() != first
        page.reload()
        assert page.inner_text("#theme") == "Dark", "the choice is kept"
        assert visit.problems == []


def test_without_javascript(browser: Any, site: Path) -> None:
    with Visit(browser, site, "index.html", java_script_enabled=False) as visit:
        text = visit.page.inner_text("main")
        for piece in ("kanade-25hz", "identity", "not applicable: phone-labels has no decoder", "n/a"):
            assert piece in text
        assert not visit.page.is_visible("form.filters")
        visit.page.click("tr[data-name^='kanade-25hz'] a[data-cell$='wer-whisper-tiny.en']")
        assert visit.page.url.endswith("tokenizers/kanade-25hz.html#reconstruction-mini-en--wer-whisper-tiny.en")
    with Visit(browser, site, "audio.html", java_script_enabled=False) as visit:
        assert visit.page.locator("audio[controls]").count() >= 14
        assert not visit.page.is_visible(".keys-help")


def test_every_control_has_a_name(browser: Any, site: Path, task_site: Path) -> None:
    script = """[...document.querySelectorAll('button, input, select, audio, a[href], [role=region], nav, summary')]
      .filter(e => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.innerText?.trim()
        || e.textContent.trim() || e.labels?.length)).map(e => e.outerHTML.slice(0, 120))"""
    for root, path in [*((site, page) for page in PAGES), *((task_site, page) for page in TASK_PAGES)]:
        with Visit(browser, root, path) as visit:
            assert visit.page.evaluate(script) == [], path


CONTRAST = """() => {
  const probe = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = c => { probe.fillStyle = '#000'; probe.fillStyle = c; probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3); };
  const light = c => { const v = rgb(c).map(x => (x /= 255) <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05); };
  const style = getComputedStyle(document.documentElement), get = n => style.getPropertyValue('--' + n).trim();
  const out = {};
  for (const ground of ['paper', 'tint', 'soft']) for (const ink of ['ink', 'muted', 'accent'])
    out[ink + ' on ' + ground] = ratio(get(ink), get(ground));
  for (const ink of ['warn', 'bad', 'good']) out[ink + ' on paper'] = ratio(get(ink), get('paper'));
  out['ink on warnbg'] = ratio(get('ink'), get('warnbg'));
  for (let i = 0; i < 8; i++) out['mark ' + i] = 1.5 * ratio(get('c' + i), get('paper'));
  return out;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser: Any, site: Path, scheme: str) -> None:
    """WCAG AA: text 4.5 to 1; chart marks 3 to 1 (given here times 1.5, so that one limit holds for all)."""
    with Visit(browser, site, "index.html", color_scheme=scheme) as visit:
        found = visit.page.evaluate(CONTRAST)
        assert {name: round(value, 2) for name, value in found.items() if value < 4.5} == {}
