@B2
Feature: Unit tests
  The parts hold by themselves, and not only together.

  @B2.1
  Scenario: all hive tests pass
    When the hive's tests are run
    Then at least 80 tests ran
    And all of them passed

  @B2.2
  Scenario: registry tests pass
    When the registry's tests are run
    Then at least 60 tests ran
    And all of them passed

  @B2.3
  Scenario: model provisioner tests pass
    When the model provisioner's tests are run
    Then at least 60 tests ran
    And all of them passed

  @B2.4
  Scenario: HTTP route tests pass
    When the HTTP routes' tests are run
    Then at least 60 tests ran
    And all of them passed
