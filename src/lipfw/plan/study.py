def study(*a): return 0
