"""Reports of finished runs, ours or lmms-eval's own: tables, plots and examples, in Markdown, LaTeX, PNG or HTML."""
