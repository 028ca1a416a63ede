"""What requests say in this dialect, and what becomes of each field."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from rbee_core import wire
from rbee_core.dialects import fields
from rbee_core.dialects.fields import Foreign
from rbee_core.dialects.responses import items
from rbee_core.dialects.responses.tools import Chosen, Tool, offer_of
from rbee_core.dialects.tools import Offer

EFFORTS = {"minimal": "low", "xhigh": "high", "max": "high"}
"""Words of this dialect for less and for more than templates know."""
LIKELIHOODS = "message.output_text.logprobs"
NAMES = (
    *(("model_ref", "model"), ("max_tokens", "max_output_tokens"), ("messages", "input"), ("logprobs", "top_logprobs")),
    *(("json_schema", "text.format.schema"), ("template_arguments", "reasoning")),
)
"""Fields of the internal request that are called otherwise here: (ours, theirs)."""

Label = Annotated[str, Meta(max_length=64)]
Value = Annotated[str, Meta(max_length=512)]


class Format(Foreign):
    """What an answer has to be."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None

    def told(self) -> dict[str, Any]:
        """Return the format as a response repeats it."""
        if self.type != "json_schema":
            return {"type": self.type}
        said = {"name": self.name, "description": self.description, "schema": self.schema, "strict": self.strict}
        return {"type": self.type, **said}

    def form(self) -> dict[str, Any] | None:
        """Return the schema that an answer has to fit, None for any text. Raises `InvalidRequest`."""
        if self.type == "json_schema":
            for field in ("name", "schema"):
                if getattr(self, field) is None:
                    raise fields.wrong(f"text.format.{field}", "a format that is a schema has one")
            return self.schema
        return {"type": "object"} if self.type == "json_object" else None


class TextWanted(Foreign):
    """How the text of an answer is to be."""

    format: Format | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Foreign):
    """How much the model is to think before it answers."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None

    def hints(self) -> dict[str, Any]:
        """Return what the model's chat template is told."""
        if self.effort is None:
            return {}
        off = {"enable_thinking": False} if self.effort == "none" else {}
        return {"reasoning_effort": EFFORTS.get(self.effort, self.effort), **off}


class ResponsesBody(Foreign):
    """The body of `/v1/responses`. None stands for what was not said."""

    model: wire.ModelText
    input: str | Annotated[list[items.Item], Meta(min_length=1, max_length=wire.MOST_MESSAGES)]
    instructions: str | None = None
    tools: Annotated[list[Tool], Meta(max_length=wire.MOST_TOOLS)] | None = None
    tool_choice: Chosen = None
    parallel_tool_calls: bool | None = None
    text: TextWanted | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    stream: bool | None = None
    metadata: Annotated[dict[Label, Value], Meta(max_length=16)] | None = None

    @property
    def parallel(self) -> bool:
        """Whether an answer may have several calls."""
        return self.parallel_tool_calls is not False

    @property
    def format(self) -> Format:
        """What the answer has to be."""
        return (self.text.format if self.text else None) or Format("text")

    @property
    def says_likelihoods(self) -> bool:
        """Whether the answer says how likely its tokens were."""
        return LIKELIHOODS in (self.include or ()) or bool(self.top_logprobs)

    def offer(self) -> Offer:
        """Return the tools, and whether they are to be called. Raises `InvalidRequest`."""
        return offer_of(self.tools or (), self.tool_choice, parallel=self.parallel)

    def internal(self, request_id: str, offer: Offer) -> wire.PoolInference:
        """Return the internal request. Raises `InvalidRequest`."""
        schema = self.format.form()
        said = {
            "model_ref": self.model,
            "request_id": request_id,
            "messages": items.internal(self.instructions, self.input),
            "max_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "logprobs": (self.top_logprobs or 0) if self.says_likelihoods else None,
            "template_arguments": (self.reasoning or Reasoning()).hints(),
            "json_schema": schema,
        }
        return fields.as_internal(wire.PoolInference, NAMES, **(said | offer.fields(schema)))


FIELDS = (
    *fields.honoured("model", note="a reference, an alias, or an `id` of `GET /v1/models`; it has to be on this node"),
    *fields.honoured(
        "input",
        note="a text, or items: message (parts of text), function_call, custom_tool_call, their outputs, reasoning",
    ),
    *fields.honoured("instructions", note="the system's first word"),
    *fields.honoured(
        "tools",
        note="`function`, and `custom` with a free text; tools that somebody else runs are refused by name",
    ),
    *fields.honoured(
        "tool_choice",
        note="`none`, `auto`, `required`, one by name, or `allowed_tools`; what is forced fits its schema",
    ),
    *fields.honoured("parallel_tool_calls", note="false: an answer ends with its first call"),
    *fields.honoured("text.format", note="`text`, `json_object`, `json_schema`; always strict"),
    *fields.honoured(
        "reasoning.effort",
        note="for templates that know `reasoning_effort`: minimal is low, xhigh and max are high; `none` is "
        "`enable_thinking: false` too",
    ),
    *fields.honoured("max_output_tokens", note="from 1 on; left out: up to the model's end, or as the context allows"),
    *fields.honoured("temperature", "top_p", "presence_penalty", "frequency_penalty"),
    *fields.honoured("top_logprobs", note="up to 20"),
    *fields.honoured("include", note=f"`{LIKELIHOODS}`; what else it names is not there"),
    *fields.honoured("stream"),
    *fields.honoured("metadata", note="repeated in the answer: up to 16, names of 64 and values of 512 characters"),
    *fields.ignored("store", note="nothing is kept, and the answer says `store: false`"),
    *fields.ignored("truncation", note="a prompt that is too long is refused, never cut: the answer says `disabled`"),
    *fields.ignored("reasoning.summary", note="what the model thought is told as it is"),
    *fields.ignored("text.verbosity", "stream_options", "max_tool_calls", "service_tier", "context_management"),
    *fields.ignored("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
    *fields.refused("previous_response_id", "conversation", note="a hive keeps no conversations: send all of it"),
    *fields.refused("background", note="nothing is kept that could be fetched later"),
    *fields.refused("prompt", note="a hive keeps no prompts: send its text"),
    *fields.refused("moderation", note="a hive asks nobody else"),
)
