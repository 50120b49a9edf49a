"""Pictures of what models predict, and the report about runs."""
