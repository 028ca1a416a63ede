Feature: Clients that were written for Anthropic
  Their base address is all the set-up they need: what they send is understood, and what they are sent is what they know.

  Scenario: a message is answered in one piece
    Given the model is ready
    When a client of Anthropic asks for a message of 4 tokens
    Then the message has 4 tokens and says that this was the limit

  Scenario: a stream has every event by its name, in order
    Given the model is ready
    When a client of Anthropic asks for a streamed message of 4 tokens
    Then the events are those of one message with one block, in order
    And the last usage counts 4 tokens

  Scenario: what Claude Code is billed by costs no prompt its cache
    Given the model is ready
    And Claude Code has had a message with a line that it is billed by
    When Claude Code asks for the same with another such line
    Then most of the prompt came from the cache

  Scenario: tokens are counted as the model reads them
    Given the model is ready
    And a client of Anthropic has had a message of 4 tokens
    When a client of Anthropic asks how many tokens that prompt has
    Then it is told as many as the message had

  Scenario: a call that has to be made is made
    Given the model is ready
    When a client of Anthropic asks for a call of a tool
    Then the message is a call of that tool with arguments that fit

  Scenario: an image is refused by name
    Given the model is ready
    When a client of Anthropic sends an image
    Then it is refused in the shape that such clients know, and the image is named
