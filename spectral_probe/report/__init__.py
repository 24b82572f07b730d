"""The output of a run: tables, figures and the report page."""
