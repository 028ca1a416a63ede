"""Anthropic's dialect, as its package and Claude Code speak it: messages, and the count of a prompt's tokens."""
