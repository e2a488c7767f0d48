"""Reports and plans as text: terminal, HTML, Markdown, model cards."""
