"""Run by `nox -s docs`: builds the API reference from the docstrings into `site/`, and checks that nothing public is missing and that
links lead somewhere.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pdoc

import otel_amplitude

SITE = Path(__file__).parents[1] / "site"
# What users import; a package is documented by its `__all__`, `_rules` for the language of the rules file.
MODULES = (
    "otel_amplitude",
    "otel_amplitude.middleware",
    "otel_amplitude.testing",
    "otel_amplitude.sandbox",
    *(f"otel_amplitude.frameworks.{name}" for name in ("asgi", "celery", "django", "flask", "starlette")),
    "otel_amplitude.convert._rules",
)


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
            elif name == "href" and tag == "a" and value:
                self.links.add(unquote(value))


def broken(pages: dict[Path, Page]) -> list[str]:
    """Every link to a page or anchor of ours that is not there."""
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            if target not in pages or (anchor and anchor not in pages[target].anchors):
                wrong.append(f"{path.relative_to(SITE)} links to {link}")
    return wrong


def missing(pages: dict[Path, Page]) -> list[str]:
    """Every public name without a place of its own."""
    found = []
    for name in MODULES:
        anchors = pages[(SITE / (name.replace(".", "/") + ".html")).resolve()].anchors
        public = getattr(importlib.import_module(name), "__all__", ())
        found += [f"{name}.{word} is not documented" for word in public if word != "__version__" and word not in anchors]
    return found


def main() -> int:
    """Build and check; 1 when anything is wrong."""
    for name in MODULES:  # names that are imported when first used: a documentation tool looks for them without asking
        module = importlib.import_module(name)
        vars(module).update({word: getattr(module, word) for word in getattr(module, "__all__", ())})
    warnings.simplefilter("error")
    # In the repository the folder has the package's name; the installed package is meant.
    warnings.filterwarnings("ignore", message=r".*may refer to either the installed Python module")
    # `set` is a method of Identify, and hides the type from annotations in the class.
    warnings.filterwarnings("ignore", message=r".*otel_amplitude\.events\.Identify")
    pdoc.render.configure(docformat="google", show_source=False, footer_text=f"otel_amplitude {otel_amplitude.__version__}")
    pdoc.pdoc(*MODULES, output_directory=SITE)
    pages = {path.resolve(): Page(path) for path in SITE.rglob("*.html")}
    wrong = broken(pages) + missing(pages)
    print("\n".join(wrong) or f"{len(pages)} pages in {SITE}, every link leads somewhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
