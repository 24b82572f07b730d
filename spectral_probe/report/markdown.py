"""Blocks of a page from Markdown, so that a text with tables is written once for both."""

from __future__ import annotations

from typing import Any

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from spectral_probe.report.page import Section, Table, Words


def sections_of(text: str) -> tuple[str, list[Section]]:
    """Return the first heading of a Markdown text, and what follows it as sections, one per further heading.

    Paragraphs, items of lists and tables become blocks; emphasis and code become plain text. HTML is text.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    heading, sections = "", [("", list[Any]())]
    for node in SyntaxTreeNode(parser.parse(text)).children:
        if node.type == "heading":
            if heading:
                sections.append((_plain(node), []))
            else:
                heading = _plain(node)
        else:
            sections[-1][1].extend(_blocks(node, sections[-1][0] or heading))
    return heading, [Section(title, blocks) for title, blocks in sections if blocks]


def _blocks(node: SyntaxTreeNode, title: str) -> list[Any]:
    if node.type == "table":
        head, *rows = [tuple(_plain(cell) for cell in row.children) for part in node.children for row in part.children]
        return [Table("", head, rows, name=title)]
    if node.type in ("bullet_list", "ordered_list"):
        return [Words(_plain(item), "item") for item in node.children]
    return [Words(_plain(node))]


def _plain(node: SyntaxTreeNode) -> str:
    """Return the text of a node without its marks."""
    if node.type in ("softbreak", "hardbreak"):
        return " "
    if not node.children:
        return node.content
    return "".join(map(_plain, node.children))
