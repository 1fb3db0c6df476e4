"""The documentation site has every page and every name, and messages that exist."""

import ast
import pathlib
import re

import pytest

import tf_movprune

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
SITE = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
HEADINGS = re.findall(
    r"^### (.*)", (DOCS / "troubleshooting.md").read_text("utf-8"), flags=re.MULTILINE
)


def test_every_page_is_in_the_navigation_once():
    navigation = SITE.split("\nnav:\n")[1]
    assert sorted(re.findall(r"[\w/]+\.md\b", navigation)) == PAGES


def test_every_public_name_is_in_the_reference_once():
    directives = [
        name
        for page in (DOCS / "api").glob("*.md")
        for name in re.findall(r"^::: tf_movprune\.(\w+)$", page.read_text("utf-8"), re.MULTILINE)
    ]
    assert sorted(directives) == sorted(set(tf_movprune.__all__) - {"__version__"})


def test_every_public_name_is_in_the_table_of_names():
    page = (DOCS / "names.md").read_text(encoding="utf-8")
    for name in set(tf_movprune.__all__) - {"__version__"}:
        assert re.search(rf"\[`{name}`\]\(api/\w+\.md#tf_movprune\.{name}\)", page), name


def test_pages_load_nothing_from_elsewhere():
    assert "font: false" in SITE and "https://" not in SITE
    for page in PAGES:
        code = re.sub(r"```.*?```", "", (DOCS / page).read_text("utf-8"), flags=re.DOTALL)
        assert not re.search(r"<(script|iframe|link)|!\[[^]]*\]\(http|```mermaid", code), page


def texts_in_the_source():
    """String constants of the package, each f-string as one text with `…` for its values."""
    for path in (ROOT / "tf_movprune").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (getattr(part, "value", None) for part in node.values)
                yield "".join(part if isinstance(part, str) else "…" for part in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


SOURCE = "\n".join(texts_in_the_source())


def test_there_are_messages():
    assert len(HEADINGS) == len(set(HEADINGS)) >= 25


@pytest.mark.parametrize("message", HEADINGS)
def test_a_message_of_the_troubleshooting_page_is_in_the_source(message):
    """Its words between the names and numbers stand in one text, in this order."""
    assert len(message.replace("…", "").split()) >= 3
    words = map(re.escape, message.replace("'", "").split("…"))
    assert re.search(".*".join(words), SOURCE.replace("'", "")), message
