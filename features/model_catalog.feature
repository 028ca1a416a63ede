@B4
Feature: Model catalog (SQLite)
  Which models this machine has is remembered across restarts, and can be lost without harm.

  @B4.1
  Scenario: the database is created at start
    Given no hive is running
    When a hive is started
    Then the catalog is a database in RBEE_HOME
    And the catalog is empty

  @B4.2
  Scenario: the catalog persists across restarts
    Given a running hive
    And a worker for the model
    When the hive is restarted
    Then the catalog lists the model

  Scenario: a damaged catalog is rebuilt and kept aside
    Given a catalog that is damaged
    When a hive is started
    Then the catalog is empty
    And the damaged catalog was kept
