@B1
Feature: Build
  What is built and what it is built from.

  @B1.5
  Scenario: nothing in the worker registry's code touches SQLite
    When the registry's code is loaded alone
    Then it succeeds
    And SQLite was not loaded with it
