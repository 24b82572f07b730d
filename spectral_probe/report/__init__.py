"""What a reader gets: tables, figures and the page of a run."""
