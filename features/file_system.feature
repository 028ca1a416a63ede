@B9
Feature: File system
  Everything is under RBEE_HOME, and only the model catalog is a database.

  @B9.1
  Scenario: no `workers.db` anywhere
    Given a running hive
    When a text is asked for
    Then it succeeds
    And no registry database exists

  @B9.2
  Scenario: `models.db` where it belongs
    When a hive is started
    Then the catalog is a database in RBEE_HOME

  @B9.3
  Scenario: no other database file under RBEE_HOME
    Given a running hive
    When a text is asked for
    Then it succeeds
    And the catalog is the only database in RBEE_HOME

  Scenario: a model on disk is used in place
    Given a running hive
    When a text is asked for
    Then it succeeds
    And no model was copied

  Scenario: what rbee writes is for its owner only
    When a hive is started
    Then nobody else may read RBEE_HOME
