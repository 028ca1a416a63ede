"""The subcommands of `rbee`, one module each, imported when it runs."""
