"""One self-contained HTML page about runs, results of `dlp bench`, or a table of labels."""
