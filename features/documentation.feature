@B10
Feature: Documentation
  What a document says, the running program does: the words are taken from the document, the facts from the program.

  @B10.1
  Scenario: ARCHITECTURE.md says what the code does about registry and catalog
    Given a running hive
    And a worker for the model
    When the hive is restarted
    Then the worker registry is what ARCHITECTURE.md says
    And the model catalog is what ARCHITECTURE.md says
    And the processes are those that ARCHITECTURE.md draws

  @B10.2
  Scenario: the MVP flow document says what the code does
    Given a running hive
    When a text is asked for
    Then the phases are those that the flow document tells of a hive that runs
    And the phases without a hive are those that the flow document tells
    And the hive answers every request that the flow document names
    And registry and catalog are where the flow document says

  @B10.3
  Scenario: the scripts say what the code does
    Given an environment that is set up
    When "make infer" is run in it
    Then it succeeds
    And stdout holds the generated text and nothing else
    And every command, extra, session and file that the scripts name is there
    And nothing is left running

  Scenario: the ports are those that the flow document says
    Given another program on the port that the flow document gives to hives
    When a hive is started without a port
    Then it is refused with exit code 1
    And it names that port
    And what the flow document leaves to the kernel is chosen by it

  Scenario Outline: a command ends as the flow document says
    Given a running hive
    When a text is asked for and <what happens>
    Then the flow document explains its exit code with "<words>"

    Examples:
      | what happens                 | words                                  |
      | it is written                | done                                   |
      | the model is not there       | failed                                 |
      | an option cannot be          | what was asked cannot work as written  |
      | it is interrupted            | Ctrl+C                                 |
      | it is terminated             | SIGTERM                                |

  Scenario: the reference names the routes that the hive answers
    Given a running hive
    When every route of the reference is asked
    Then the hive knows each of them
    And the hive does not know a route that the reference does not name

  Scenario: the set-up says what this machine lacks
    Given no hive is running
    When the set-up is run on a machine without compilers
    Then it is refused with exit code 1
    And it says "a C compiler is missing"
    And no traceback is shown
