"""Checks a built site: links lead to files and anchors of it, pages load nothing from elsewhere, and its search index knows some words.

python ci/site.py FOLDER
"""

import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADING = {"img": "src", "script": "src", "iframe": "src", "link": "href"}  # what a browser fetches
WORDS = {  # stems, as the index has them, and a page that must be among their findings
    "sandwich": "uncertainty",
    "checkpoint": "guide/files",
    "minimis": "auto_gallery/plot_no_minimum",
    "numba": "embedding",
    "softmax": "guide/links",
}


class Page(HTMLParser):
    """The anchors of a page and its links: (tag, target)."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links = {"", "top"}, []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        for name in {"href", LOADING.get(tag)} - {None}:
            if found.get(name) and found.get("rel") != "canonical":
                self.links.append((tag, found[name]))


def broken(site, pages):
    """A line for each link that leads nowhere, and for each file that a page would load from elsewhere."""
    for path, page in pages.items():
        for tag, link in page.links:
            parts = urlsplit(link)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                if tag in LOADING:
                    yield f"{path.relative_to(site)}: loads {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{path.relative_to(site)}: {link}: no such file"
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{path.relative_to(site)}: {link}: no such anchor"


def unfound(site):
    """A line for each word that the search index does not lead to its page."""
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("{") : text.rindex("}") + 1])
    for word, page in WORDS.items():
        found = index["terms"].get(word, [])
        names = [index["docnames"][number] for number in (found if isinstance(found, list) else [found])]
        if page not in names:
            yield f"search: {word!r} leads to {names}, not to {page}"


def main():
    site = Path(sys.argv[1]).resolve()
    pages = {path: Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}
    errors = [*broken(site, pages), *unfound(site)]
    print(*errors, sep="\n", end="\n" * bool(errors))
    print(f"{len(pages)} pages, {sum(len(page.links) for page in pages.values())} links, {len(errors)} errors")
    return 1 if errors or len(pages) < 50 else 0


if __name__ == "__main__":
    sys.exit(main())
