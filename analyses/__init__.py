"""The analyses: one question each, one tidy table and one figure. `python -m analyses` runs them.

`studies/` has the questions, `kit/` what they share. Which there are, and in which order, says `kit/story.py`: a study
depends on the packages it lies in, and the list of all would make each depend on every other's name.
"""
