Feature: Clients that were written for OpenAI
  Their base address is all the set-up they need: what they send is understood, and what they are sent is what they know.

  Scenario: a stream says its role first, its reason last, then the usage, then that this was all
    Given the model is ready
    When a client of OpenAI asks for a streamed chat of 4 tokens
    Then the role is in the first chunk and in no other
    And the reason is in the last chunk of the answer: the limit
    And a chunk without an answer follows, which counts 4 tokens
    And the end mark follows, and nothing else
    And all chunks have one name, and no event has one

  Scenario: who sets no limit hears the model to its end
    Given the model is ready
    When a client of OpenAI asks for thirty bees and sets no limit
    Then it has all of them, and the model has ended by itself

  Scenario: the pieces of a call can be put together
    Given the model is ready
    When a client of OpenAI asks for a streamed call of a tool
    Then the first piece has the name of the call and of the tool, the others its arguments
    And put together, the arguments fit

  Scenario: a developer's word is the system's
    Given the model is ready
    And a client of OpenAI has asked with a word of the system
    When it asks with the same as the developer's
    Then the model has read the same prompt

  Scenario: a conversation is taken as clients keep it
    Given the model is ready
    When a client of OpenAI sends a conversation with parts, thoughts, a call and two turns of one side in a row
    Then the chat has 1 token, and that was the limit

  Scenario: what other servers have added is honoured
    Given the model is ready
    When a client of OpenAI asks for 4 tokens with the fields of other servers
    Then the chat has 4 tokens, and that was the limit
    And it says what came from the cache, and how long it took

  Scenario: a model is listed with the window that a request may use
    Given the model is ready
    When a client of OpenAI lists the models
    Then the model is listed with the window of its worker, under each name that clients look for
    And it looks the same when it is asked for alone

  Scenario: a model that is not here is refused in words that such clients know
    Given the model is ready
    When a client of OpenAI asks for a model that is not here
    Then it is refused with status 404 and the code MODEL_NOT_FOUND, and told not to try again

  Scenario: who sets a deadline is not made to try again after it
    Given the model is ready
    When a client of OpenAI gives a very long chat a tenth of a second
    Then it is refused with status 408 and the code DEADLINE_EXCEEDED, and told not to try again

  Scenario: a page on this machine may send what such clients send
    Given the model is ready
    When a browser asks what a page on this machine may send
    Then it may send the headers of such clients

  @scripted
  Scenario: vectors are the bytes of numbers for those who ask so
    Given a running hive
    And a model that writes 20 words
    When a client of OpenAI asks it for a vector as bytes
    Then it has the numbers as little-endian bytes, four for each

  @scripted
  Scenario: a stream is heard to live while its model loads
    Given a hive whose streams say ten times a second that they live
    And a model that takes half a second to load
    When a client of OpenAI asks for its text as a stream
    Then it hears comments before the first chunk
