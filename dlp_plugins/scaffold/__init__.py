"""`dlp new`: a small installable package with one component of any kind."""
