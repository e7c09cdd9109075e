"""One command a file. Each imports what is heavy only when it runs, for a quick `dlp --help`."""
