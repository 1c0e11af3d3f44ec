"""How fast is lipfw, and against what? `python -m benchmarks` measures it all on this machine and writes a page.

One file a question: `step`, `sparse`, `imp`, `throughput`, `memory`, `peak`, `imports`, `overhead`,
`generators`. Each has `measure(setting)`, which yields rows; what they share lies in `contenders` (who runs), `worker`
(in a process of its own), `timing` (in turns), `masks` (tickets that were really found) and `page`. `published` and
`published_gan` are the loops to be faster than. `plain_dip` and `agree` compare quality, by themselves.
"""
