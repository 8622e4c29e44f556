"""Run by `nox -s docs` on the built site: every link between its pages leads to a page and a place on it, and everything public is documented."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

DOCS = Path(__file__).parents[1] / "docs"


class Page(HTMLParser):
    """The anchors and links of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif (name, tag) in (("href", "a"), ("href", "link"), ("src", "img"), ("src", "script")) and value:
                self.links.add(unquote(value))


def broken(site: Path, pages: dict[Path, Page]) -> list[str]:
    """Every link to a page, file or place of the site that is not there."""
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:|//", link):
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file.partition("?")[0]).resolve() if file else path
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                wrong.append(f"{path.relative_to(site)} links to {link}")
    return wrong


def missing(pages: dict[Path, Page]) -> list[str]:
    """Every public name without a place of its own."""
    spec = importlib.util.spec_from_file_location("conf", DOCS / "conf.py")
    assert spec
    assert spec.loader
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    anchors = set().union(*(page.anchors for page in pages.values()))
    found = []
    for name in conf.MODULES:
        for word in getattr(importlib.import_module(name), "__all__", ()):
            if word != "__version__" and not any(f"{place}.{word}" in anchors for place in ("otel_amplitude", name)):
                found.append(f"{name}.{word} is not documented")
    return found


def main(site: Path) -> int:
    """Check; 1 when anything is wrong."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    wrong = broken(site, pages) + missing(pages)
    print("\n".join(wrong) or f"{len(pages)} pages in {site}, every link leads somewhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
