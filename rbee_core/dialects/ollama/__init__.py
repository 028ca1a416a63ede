"""Ollama's dialect, as its package, Home Assistant, Zed and the pickers of editors speak it."""
