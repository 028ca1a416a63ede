"""What tests share: driving the real programs, the scripted backend, the oracles."""
