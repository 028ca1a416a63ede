Feature: What a backend declares
  A capability that is declared is kept; one that is there and not declared is worth a warning.

  @capability.stream
  Scenario: text comes while it is generated, not at the end
    Given the model is ready
    When 24 tokens are asked for
    Then the text came whole
    And its first token came in the first half of the time

  @capability.cancel
  Scenario: a text after a cancelled one is not disturbed
    Given the model is ready
    And 12 tokens were asked for
    And somebody has cancelled a long text
    When the same text is asked for again
    Then it is the same text

  @capability.seed
  Scenario: the same seed gives the same text
    Given a running hive
    And the model is loaded
    When a text is asked for with each of the seeds 0, 7, 0, 7
    Then each seed gave one text
    And each gives the same text in the next worker

  @capability.seed
  Scenario: another seed gives another text
    Given the model is ready
    When a text is asked for with each of the seeds 7, 8, 9
    Then the seeds did not all give the same text

  @capability.seed
  Scenario: a seed gives the same text whoever else is written for
    Given the model is ready for 3 texts at a time
    When two people at a time ask for a text with each of the seeds 7, 8, 9, 7, 8, 9
    Then each seed gave one text

  @capability.chat
  Scenario: a conversation goes through the model's template
    Given the model is ready
    When the model is asked in a conversation "What is 2 + 2?"
    Then the text came whole
    And the conversation took more tokens than the question alone

  @capability.chat
  Scenario: a question that may be answered goes through the model's template
    Given the model is ready
    And the model was asked in a conversation "What is 2 + 2?"
    When the model is asked, through its template if it has one, "What is 2 + 2?"
    Then the text came whole
    And it is the same text
    And its last word says that it went through the template

  @capability.batching
  Scenario: two texts are generated at a time
    Given the model is ready for 3 texts at a time
    When two people ask for a long text
    Then both receive text while neither has ended

  @capability.batching
  Scenario: texts that are written together are each what they are alone
    Given the model is ready for 3 texts at a time
    And it is known how many tokens are written in a second
    And a text was asked for in each slot but one, one after another
    When they are asked for together, beside one that is cancelled
    Then each of them is what it was alone
    And all slots are free again

  @capability.batching
  Scenario: a long prompt does not hold up a text that is being written
    Given a running hive that lets a worker write 2 texts at a time
    And the model is loaded with a context of 1024 tokens
    When a text with a long prompt is asked for while another is written
    Then the other went on meanwhile
