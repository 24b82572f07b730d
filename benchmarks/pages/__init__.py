"""The pages of docs/, written from the tables in figures/."""
