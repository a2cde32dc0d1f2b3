"""The parts of the report page: its template, style and script."""
