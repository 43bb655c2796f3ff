"""The problems: task families (Countdown, mathematics), their files, and grading.

A family is a module that judges an answer, and says which answers vote together (`grading`). Text
that a model wrote is never evaluated as code.
"""
