"""The status page in a real browser: headless Chromium (Debian package `chromium`)."""

import re
import shutil
import subprocess
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

from report import Report, want

NAMES = ["chromium", "chromium-browser", "google-chrome"]


class Seen(HTMLParser):
    """What a person reads on the page: text by the id or class of what it is in."""

    VOID = {"meta", "br", "img", "link", "input", "hr"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.found, self.tags = [], {}, set()
        self.feed(page)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            values = dict(attrs)
            self.open.append((values.get("class") or "").split() + [values.get("id") or tag])

    def handle_endtag(self, tag) -> None:
        if tag not in self.VOID and self.open:
            self.open.pop()

    def handle_data(self, data) -> None:
        for name in {name for names in self.open for name in names}:
            self.found[name] = " ".join((self.found.get(name, "") + " " + data).split())

    def text(self, name: str) -> str:
        """All text within elements of this id or class."""
        return self.found.get(name, "")


def browse(program: str, work: Path, url: str) -> Seen:
    """The page as the browser has it after it was drawn."""
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
               "--no-first-run", f"--user-data-dir={work}", "--virtual-time-budget=2000",
               "--dump-dom", url]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=120, check=False)
    want(done.returncode == 0, f"{program} ended with {done.returncode}: {done.stderr[-800:]}")
    return Seen(done.stdout)


def check(report: Report, pair, work: Path) -> None:
    """The pages of both engines after a backup, a copy and rows in the maps."""
    program = next((path for path in map(shutil.which, NAMES) if path), None)
    if program is None:
        report.skip("chromium", "install chromium")
        return
    work.mkdir(parents=True)
    config = pair.work / "local.toml"

    def twinreel(*words: str) -> None:
        done = subprocess.run([pair.smis.program, *words], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=300, check=False)
        want(done.returncode == 0, f"twinreel {words}: {done.stderr[-800:]}")

    with report.check("page: a backup and a copy to look at"):
        content = work / "content"
        content.write_bytes(bytes(range(256)) * 4096)
        twinreel("dma", "backup", "--config", config, "--target", "vtl0:VTA006L8", content)
        twinreel("dma", "copy", "--config", config, "--source", "vtl0:VTA006L8",
                 "--target", "dr-ptl0:PTA006L8")
    with report.check("page: chromium shows libraries, ghosts, jobs and the three maps"):
        seen = browse(program, work / "local", f"http://{pair.pages[0]}/")
        want("Twinreel at hq" in seen.text("h1"), seen.text("h1"))
        want("up" in seen.text("link"), seen.text("link"))
        ghost, own = seen.text("library-dr-ptl0"), seen.text("library-vtl0")
        want("ghost of a library at another site" in ghost, ghost)
        want(re.search(r"reported \d+ (s|min|h) ago", ghost), ghost)
        want("PTA006L8" in ghost and "dr-ptl0/drive0" in ghost, ghost)
        want("virtual library" in own and "VTA006L8" in own and "vtl0/drive1" in own, own)
        jobs = seen.text("jobs")
        want("vtl0/VTA006L8" in jobs and "dr-ptl0/PTA006L8" in jobs and "done" in jobs, jobs)
        headings = seen.text("h2")
        for name in ("Frontend-backend map", "Copy map", "Migration map"):
            want(name in headings, headings)
        want("script" not in seen.tags, "there is a script")
    with report.check("page: chromium shows the page of the remote engine"):
        seen = browse(program, work / "remote", f"http://{pair.pages[1]}/")
        library = seen.text("library-ptl0")
        want("physical library" in library and "PTA006L8" in library, library)
    with report.check("page: nobody reads it by a name of his own"):
        request = urllib.request.Request(f"http://{pair.pages[0]}/", headers={"Host": "a.example"})
        try:
            urllib.request.urlopen(request, timeout=10)
            want(False, "it was answered")
        except urllib.error.HTTPError as error:
            want(error.code == 421, f"it was answered {error.code}")
