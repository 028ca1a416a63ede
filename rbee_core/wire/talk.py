"""The shapes of a conversation: its turns, the tools a model may call, and how its answers are written."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from rbee_core.wire.base import Lenient, Strict

ToolName = Annotated[str, Meta(min_length=1, max_length=256)]
MOST_MESSAGES = 1 << 14
MOST_TOOLS = 512


class Tool(Strict):
    """A function that the model may call; `parameters` is the JSON schema of its arguments, {} for none."""

    name: ToolName
    description: str = ""
    parameters: dict[str, Any] = {}


class ToolCall(Strict):
    """A call that the model made in an earlier turn. `arguments` is JSON text, as it came."""

    name: ToolName
    arguments: str = ""
    id: Annotated[str, Meta(max_length=256)] = ""


class ChatMessage(Strict):
    """One turn of a conversation. What follows `content` needs a backend that declares ``tools``.

    `reasoning` is what an assistant thought before it answered. The turn of a ``tool`` is the result of the call that
    `tool_call_id` and `tool_name` name.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    reasoning: str = ""
    tool_calls: list[ToolCall] = []
    tool_call_id: str = ""
    tool_name: str = ""

    @property
    def says_something(self) -> bool:
        """Whether there is anything in it to answer."""
        return bool(self.content.strip() or self.tool_calls)


class Style(Lenient):
    """How answers of a model are written, as its chat template says. All empty: they are text and nothing else.

    `tools` is the family of notations of calls. What stands between the two marks of `reasoning` is no part of the
    answer; `open` says that the prompt ends behind the first of them.
    """

    tools: str = ""
    reasoning: tuple[str, str] | None = None
    open: bool = False


class StyleEvent(Lenient):
    """Comes before the first token of an answer to messages that is written in a style."""

    style: Style
