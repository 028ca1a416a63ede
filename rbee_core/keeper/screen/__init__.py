"""What a person sees of a command: phases, progress, tables, text."""
