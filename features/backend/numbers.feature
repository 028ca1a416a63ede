Feature: Texts in numbers
  Vectors of texts, and scores of documents, for backends that declare them.

  Background:
    Given the model is ready

  @capability.embeddings
  Scenario: a text has one vector, alone and among others
    When vectors of several texts are asked for
    Then each text has one, as long as the others and unlike them
    And each has the same when they are asked for again
    And each has the same when it is asked for alone

  @capability.embeddings
  Scenario: vectors have length 1, or their own
    When vectors of several texts are asked for
    Then each has length 1
    And one that is not normalised points to where it does

  @capability.embeddings
  Scenario: what pools the tokens of a text makes a difference, or is refused
    When vectors of a text are asked for with each way of pooling
    Then no two ways give the same vector

  @capability.rerank
  Scenario: a document has one score, alone and among others
    When scores of several documents are asked for
    Then each document has one, and not all have the same
    And each has the same when they are asked for again
    And each has the same when it is asked for alone
