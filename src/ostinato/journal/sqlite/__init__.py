"""The tables of the journal: connections, schema and migrations, and what a driver writes."""
