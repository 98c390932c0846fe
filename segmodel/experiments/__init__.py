"""The tables and figures of Sec. 7 as runs, results and times."""
