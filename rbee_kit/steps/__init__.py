"""The glue between the backend part of the specification and the running programs: one module a noun."""
