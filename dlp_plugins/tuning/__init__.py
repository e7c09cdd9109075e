"""`dlp tune`: settings searched by Optuna, judged by the validation error alone."""
