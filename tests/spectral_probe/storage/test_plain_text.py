"""Text from outside is shown, and never obeyed."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from spectral_probe.cli.terminal import cell
from spectral_probe.storage.plain_text import markdown_cell, markdown_text, plain, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("over\rwritten\x08", r"over\rwritten\x08"),
        ("abc\u202ecba", r"abc\u202ecba"),
        ("half \udc80", r"half \udc80"),
        ("Café ☕ 東京\tx\ny", "Café ☕ 東京\tx\ny"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text, shown):
    assert plain(text) == shown
    assert plain(shown) == shown


def test_markup_in_a_cell_is_text():
    stream = io.StringIO()
    table = Table(title=cell("[red]t[/red]"))
    table.add_column(cell("[bold]c"))
    table.add_row(cell("[bold].csv \\[/] \x1b[2J"))
    Console(file=stream, width=60, force_terminal=True).print(table)
    printed = stream.getvalue()
    for shown in ("[red]t[/red]", "[bold]c", "[bold].csv \\[/] \\x1b[2J"):
        assert shown in printed
    assert "\x1b[2J" not in printed


def test_a_markdown_table_keeps_its_columns_and_shows_html():
    assert markdown_cell("a|b\nc <script>x</script>") == r"a\|b c &lt;script>x&lt;/script>"
    assert markdown_text("p < 0.01, 3<4 <!-- x --> <b>") == "p < 0.01, 3<4 &lt;!-- x --> &lt;b>"


def test_a_long_word_is_cut_and_its_length_is_told():
    text = f"no user {'x' * 10_000!r}. Give one of {'y ' * 400}"
    short = shortened(text)
    assert short.startswith("no user 'xxx")
    assert "… (10,003 characters) Give" in short
    assert short.endswith("y " * 400)
    assert len(short) < 1100
