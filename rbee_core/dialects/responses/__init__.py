"""OpenAI's Responses, as its package, Codex and n8n speak it; stateless, as a hive keeps no conversations."""
