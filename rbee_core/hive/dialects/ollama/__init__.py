"""The routes that Ollama's clients know: looking at models, working with them, fetching and removing them."""
