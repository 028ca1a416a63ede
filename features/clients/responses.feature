Feature: Clients that were written for OpenAI's Responses
  Their base address is all the set-up they need: what they send is understood, and what they are sent is what they know.

  Scenario: a response is made in one piece
    Given the model is ready
    When a client of Responses asks for a response of 4 tokens
    Then the response has 4 tokens and says that this was the limit
    And it has every field that strict clients want

  Scenario: a stream has every event by its name and number, in order
    Given the model is ready
    When a client of Responses asks for a streamed response of 4 tokens
    Then the events are those of one response with one message, in order and numbered
    And put together, its text is what the last event has

  Scenario: a call that has to be made is made, and what comes of it is heard
    Given the model is ready
    And a client of Responses has had a call of a tool
    When it tells the model what came of that
    Then the model goes on from there

  Scenario: a tool that takes a free text is called with one that fits
    Given the model is ready
    When a client of Responses asks for a call of a tool that takes a free text
    Then the text comes in pieces and is what the tool takes

  Scenario: an answer that has to fit a schema fits it
    Given the model is ready
    When a client of Responses asks for an answer that fits a schema
    Then the answer fits it

  Scenario Outline: what a server without memory or tools of its own cannot do is refused by name
    Given the model is ready
    When a client of Responses asks in vain for <what>
    Then it is refused as such clients know it, and <field> is named

    Examples:
      | what                             | field                        |
      | what follows an earlier response | previous_response_id         |
      | a response in the background     | background                   |
      | a search of the web              | tools[0].web_search          |
      | a word on an image               | input[0].content[0].input_image |
