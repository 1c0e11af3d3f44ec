"""python -m lipfw"""
from lipfw.cli import main

if __name__ == "__main__":
    main()
