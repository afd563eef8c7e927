"""The same checks on trimtab and on PEFT: what holds, what does not, and whether anything says so.

A *check* is data: a name, what must hold, for which tasks, and a function that measures by how much it does not. A
*subject* is one method of one library on a tiny model of one family for one task; both libraries' subjects can do the
same few things (`subject.py`). Every check on every subject is a *cell* with an outcome (`judging.py`).
"""
