"""Models on this node: finding them, bringing them here, and remembering them."""
