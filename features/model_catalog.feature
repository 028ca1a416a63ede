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

  @B4.3
  Scenario: the catalog tracks downloads
    Given a hub that has a model
    And a running hive
    When a worker is wanted for the hub's model
    Then the catalog says what was downloaded, from where, to where, how large and when
    And the file is whole

  @B4.4
  Scenario: the catalog prevents a second download
    Given a hub that has a model
    And a running hive
    And the hub's model was downloaded
    And the hive was restarted
    When a worker is wanted for the hub's model
    Then it becomes idle
    And the hub was not asked again

  Scenario: a damaged catalog is rebuilt and kept aside
    Given a catalog that is damaged
    When a hive is started
    Then the catalog is empty
    And the damaged catalog was kept
