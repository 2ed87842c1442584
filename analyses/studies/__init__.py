"""The studies, one question each. A file NAME.py, or a folder NAME with `data.py` (what is learned from), `runs.py`
(what is trained and measured) and `findings.py` (what the committed rows say) beside the `STUDY` of its `__init__.py`.
"""
