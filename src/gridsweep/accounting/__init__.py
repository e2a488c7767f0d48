"""What a sweep cost, what it saved, what was possible; the report as a value."""
