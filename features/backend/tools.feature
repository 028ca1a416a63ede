Feature: What is told to a model beside a text
  Tools with their calls, and the text behind a gap, for backends that declare them.

  Background:
    Given the model is ready

  @capability.tools
  Scenario: tools and their results are told to the model
    When a conversation is read without its tool, with it, and with a longer result of it
    Then the tool takes tokens of the prompt
    And a long result takes more of them than a short one

  @capability.tools
  Scenario: a call comes where it has to, and none where there may be none
    When one of two tools has to be called, and then none may be
    Then the call names that tool, and its arguments fit
    And without a call a text comes

  @capability.infill
  Scenario: what belongs into a gap is written with both its sides in view
    When a gap is filled before a short text, and before a long one
    Then each gap got a text
    And the text behind the gap takes tokens of the prompt
