"""Speed against the limit and strength on reference targets; `make bench` writes RESULTS.md."""
