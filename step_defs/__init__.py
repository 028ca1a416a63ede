"""The glue between the sentences of features/ and the running programs: one module a noun, one function a step."""
