"""The problems: task families (Countdown, mathematics), their files, and grading.

A family is a module that makes, loads and grades problems and names their references. Text that a
model wrote is never evaluated as code.
"""
