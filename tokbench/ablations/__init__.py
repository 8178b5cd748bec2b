"""Ablations: grids of trainings that differ in one thing, evaluated by the ordinary tasks and compared in pairs.

`grid` reads them, `jobs` trains and evaluates, `pairs` does the statistics, `report` makes the record.
"""
