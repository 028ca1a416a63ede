Feature: Clients that were written for Ollama
  Its address is all the set-up they need: what they send is understood, and what they are sent is what they know.

  Scenario: a picker is told a release that it takes
    Given the model is ready
    When a client of Ollama asks for the release
    Then it is one that editors take

  Scenario: strict clients find every field in the list of models
    Given the model is ready
    When a client of Ollama lists the models
    Then the model is listed with every field that a strict client wants

  Scenario: a model is shown with what it can do and the window that a request may use
    Given the model is ready
    When a client of Ollama has the model shown
    Then it is said to complete texts, and to have the window of its worker

  Scenario: a chat comes in lines, the last of which says how it went
    Given the model is ready
    When a client of Ollama asks for a chat of 4 tokens
    Then each line but the last is a piece of the answer
    And the last line counts 4 tokens and says that this was the limit
    And its times are nanoseconds

  Scenario: a prompt is continued in lines
    Given the model is ready
    When a client of Ollama has a text continued by 4 tokens
    Then the last line counts 4 tokens and says that this was the limit

  Scenario: an answer has the form that was asked for
    Given the model is ready
    When a client of Ollama asks for an answer that fits a schema
    Then the answer fits

  Scenario: a window that a worker has is no reason for another worker
    Given the model is ready
    And a client of Ollama has had a chat of 1 token
    When a client of Ollama asks for a chat with a window of 512 tokens
    Then it is answered, and by no new worker

  @scripted
  Scenario: a model is loaded with the window that was asked for
    Given a running hive
    And a model that writes 20 words
    When a client of Ollama has it loaded with a window of 1024 tokens
    Then one model is loaded, with a window of 1024 tokens

  @scripted
  Scenario: a model that is to be kept for no time goes
    Given a running hive
    And a worker that writes 20 words
    When a client of Ollama asks that its model be kept for no time
    Then it is told that the model goes
    And soon no model is loaded

  Scenario: a model that is not here is refused in a sentence
    Given the model is ready
    When a client of Ollama asks for a model that is not here
    Then it is refused in a sentence that says what to do
