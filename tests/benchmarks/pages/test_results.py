"""The page of results says what the committed tables say, and nothing else."""

from benchmarks.pages import results


def test_the_page_is_written_from_the_tables_byte_for_byte() -> None:
    assert results.PAGE.read_text(encoding="utf-8") == results.page()


def test_the_committed_runs_name_no_path_on_a_machine() -> None:
    for path in results.FIGURES.glob("*.json"):
        assert "/home/" not in path.read_text(encoding="utf-8")
        assert '"model": "/' not in path.read_text(encoding="utf-8")
