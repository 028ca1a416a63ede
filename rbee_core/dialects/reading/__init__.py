"""Reads what models write: which of it is the answer, which is reasoning, and which are calls of tools, by family.

Every reader gives the same parts however its text is cut, and text leaves it as soon as it cannot be a mark.
"""
