"""OpenAI's dialect, as its package and some twenty other clients speak it, with what llama.cpp and vLLM added to it."""
