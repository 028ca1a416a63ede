Feature: Plugins
  Backends and model sources come from installed packages; a broken one is named and harms nobody.

  Scenario: the installed plugins are listed
    When the command "rbee plugins" is run
    Then it succeeds
    And it says "llamacpp-cpu"
    And it says "sources"

  @scripted
  Scenario: a plugin from another package is found
    When the command "rbee plugins" is run
    Then it succeeds
    And it says "rbee-scripted 1.0"

  Scenario Outline: a plugin that <fault> is named and harms nobody
    Given a plugin that <fault>
    When the command "rbee plugins" is run
    Then it succeeds
    And it says why "broken" failed: "<reason>"
    And the backend still works

    Examples:
      | fault                   | reason               |
      | raises when imported    | on purpose           |
      | leaves when imported    | on its way out       |
      | is not there            | No module named      |
      | has a hook nobody knows | unknown hook         |
      | registers no backend    | which is no Backend  |

  @scripted
  Scenario: a plugin can be switched off
    Given plugin "scripted" is switched off
    When the command "rbee plugins" is run
    Then it succeeds
    And it does not say "scripted"
