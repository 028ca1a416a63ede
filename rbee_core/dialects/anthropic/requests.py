"""What requests say in this dialect, and what becomes of each field."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from rbee_core import wire
from rbee_core.dialects import fields
from rbee_core.dialects.anthropic import turns
from rbee_core.dialects.fields import Foreign
from rbee_core.dialects.tools import Choice, Offer

CUSTOM = (None, "custom")
"""The kinds of tools that a client runs itself; all others are Anthropic's own."""
MODES: dict[str, Literal["auto", "required", "none"]] = {
    "auto": "auto",
    "any": "required",
    "tool": "required",
    "none": "none",
}
EFFORTS = {"xhigh": "high", "max": "high"}
"""Words of this dialect for more than templates know."""
NAMES = (("model_ref", "model"), ("stop", "stop_sequences"), ("json_schema", "output_config.format.schema"))
"""Fields of the internal request that are called otherwise here: (ours, theirs)."""


class Tool(Foreign):
    """A tool that the client runs, or one of Anthropic's own."""

    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class ToolChoice(Foreign):
    """Whether tools are to be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Foreign):
    """Whether the model is to think before it answers."""

    type: str


class Format(Foreign):
    """What an answer has to be."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Foreign):
    """How an answer is to be made."""

    effort: str | None = None
    format: Format | None = None


class Prompted(Foreign):
    """What makes a prompt: a body of `/v1/messages/count_tokens`."""

    model: wire.ModelText
    messages: Annotated[list[turns.Turn], Meta(min_length=1)]
    system: turns.Content = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: Format | None = None

    def offer(self) -> Offer:
        """Return the tools, and whether they are to be called. Raises `InvalidRequest`."""
        tools = [_tool(tool, f"tools[{number}]") for number, tool in enumerate(self.tools or ())]
        if self.tool_choice is None:
            return Offer(tools)
        if self.tool_choice.type == "tool" and not self.tool_choice.name:
            raise fields.wrong("tool_choice.name", "it names the tool that has to be called")
        named = self.tool_choice.name if self.tool_choice.type == "tool" else ""
        parallel = not self.tool_choice.disable_parallel_tool_use
        return Offer(tools, Choice(MODES[self.tool_choice.type], named or ""), parallel)

    def internal(self, request_id: str, offer: Offer) -> wire.PoolInference:
        """Return the internal request. Raises `InvalidRequest`."""
        wanted = self.output_config or OutputConfig()
        form = wanted.format or self.output_format
        schema = form.schema if form else None
        said = {
            "model_ref": self.model,
            "request_id": request_id,
            "messages": turns.internal(self.system, self.messages),
            "template_arguments": self._template_arguments(wanted.effort),
            "json_schema": schema,
        }
        return fields.as_internal(wire.PoolInference, NAMES, **(said | self._choosing() | offer.fields(schema)))

    def _choosing(self) -> dict[str, Any]:
        """Return the fields of the internal request that say how the answer's tokens are chosen."""
        return {}

    def _template_arguments(self, effort: str | None) -> dict[str, Any]:
        told: dict[str, Any] = {} if self.thinking is None else {"enable_thinking": self.thinking.type != "disabled"}
        return told | ({} if effort is None else {"reasoning_effort": EFFORTS.get(effort, effort)})


class MessagesBody(Prompted, kw_only=True):
    """The body of `/v1/messages`."""

    max_tokens: int
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None

    def _choosing(self) -> dict[str, Any]:
        return {
            "max_tokens": self.max_tokens,
            "stop": [stop for stop in self.stop_sequences or () if stop],
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
        }


def _tool(tool: Tool, where: str) -> wire.Tool:
    if tool.type not in CUSTOM:
        raise fields.refusal(f"{where}.{tool.type}", "a hive runs no tools, and models know those that are described")
    if not tool.name:
        raise fields.wrong(f"{where}.name", "a tool has a name")
    said = {"description": tool.description, "parameters": tool.input_schema}
    return fields.as_internal(wire.Tool, (("name", f"{where}.name"),), name=tool.name, **said)


PROMPT_FIELDS = (
    *fields.honoured("model", note="a reference, an alias, or an `id` of `GET /v1/models`; it has to be on this node"),
    *fields.honoured(
        "messages",
        note="of user, assistant, system; parts text, tool_use, tool_result, thinking. The last is no assistant's",
    ),
    *fields.honoured("system", note="a text, or parts of text; without the line that Claude Code is billed by"),
    *fields.honoured(
        "tools", note="those that the client runs; Anthropic's own (`type` of a date) are refused by name"
    ),
    *fields.honoured("tool_choice", note="auto, any, tool, none; a call that has to be made fits the tool's schema"),
    *fields.honoured(
        "thinking", note="for templates that know `enable_thinking`; `disabled` is false, all others true"
    ),
    *fields.honoured(
        "output_config.effort", note="`reasoning_effort` of templates that know it; xhigh and max are high"
    ),
    *fields.honoured("output_config.format", "output_format", note="`json_schema`"),
    *fields.honoured("tool_choice.disable_parallel_tool_use", note="true: the first call only"),
    *fields.ignored("thinking.budget_tokens", "thinking.display"),
    *fields.ignored("cache_control", note="here and in parts: the longest prompt that is known is found by itself"),
    *fields.ignored("metadata", "service_tier", "inference_geo", "speed", "diagnostics", "context_management", "betas"),
    *fields.ignored("user_profile_id", "workspace_id", "billing_policy", "fallbacks", "fallback_credit_token"),
    *fields.refused("container", "mcp_servers", note="a hive asks nobody else and runs nothing for a model"),
    *fields.refused("thread", "compaction", note="a hive keeps no conversations: send all of it"),
)
"""What becomes of what makes a prompt."""

FIELDS = (
    *fields.honoured("max_tokens", note="required, from 1 on; not more than the context has room for"),
    *fields.honoured("stream"),
    *fields.honoured("stop_sequences", note="up to 16; `stop_sequence` of the answer says which one came"),
    *fields.honoured("temperature", "top_p", note="0 to 2, and 0 to 1"),
    *fields.honoured("top_k", note="0 for all tokens"),
    *PROMPT_FIELDS,
)
